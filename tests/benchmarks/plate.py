"""Plates of small fields, from scratch to the report: ``python -m tests.benchmarks.plate 100 1000``.

N fields of 256 x 256 px with references, cut from the micrograph of the demo, in one folder; the network of the demo
(U-Net of width 16), untrained. ``network_s`` is the time in the network, ``jobs_s`` that of each job, ``jobs_mb`` the
largest process of a job as Snakemake measured it. A plate is in time if all of it takes at most a multiple of the
network and some seconds. Then the second run, in which nothing is to do, and ``snakemake -n``.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import tifffile
import yaml

from pipeline.base import paths
from pipeline.project.jobs.ledger import Entries, read_ledger
from tests.benchmarks.common import fresh_folder, say, say_machine
from tests.benchmarks.planning import measured
from tests.benchmarks.weight_map import demo_images
from tests.support.networks import CLASSES, write_network

SIDE_PX = 256
# Most time that a plate may take: so many times the network, and so many seconds more
LIMITS = {100: (2.0, 20.0), 1000: (1.7, 60.0)}
CONFIG = {
    "settle_s": 0,
    "classes": CLASSES,
    "training": {"kind": "instances"},
    "image": {"channels": [0], "fallback_pixel_size_um": 0.5},
    "models": {"net": {"checkpoint": "network/model.safetensors"}},
}


def main(*counts: int) -> None:
    """Print the machine, then the figures of each plate."""
    say_machine()
    for fields in counts or tuple(LIMITS):
        with fresh_folder() as project:
            lay_out(project, fields)
            bench(project, fields)


def bench(project: Path, fields: int) -> None:
    """Run the workflow from scratch, then again, then only plan."""
    first = measured(project)
    network_s = sum(entry.found["network_s"] for ledger in ledgers("predict") for entry in ledger.values())
    objects = sum(entry.found["objects"] for ledger in ledgers("objects") for entry in ledger.values())
    ratio, more_s = LIMITS[min(LIMITS, key=lambda known: abs(known - fields))]
    times, peaks = measured_by_snakemake()
    say(
        "plate",
        fields=fields,
        objects=objects,
        wall_s=first["wall_s"],
        network_s=network_s,
        ratio=first["wall_s"] / network_s,
        limit_s=ratio * network_s + more_s,
        is_in_time=first["wall_s"] <= ratio * network_s + more_s,
        jobs_s=times,
        jobs_mb=peaks,
        peak_mb=max(first["peak_mb"], *peaks.values()),
    )
    say("plate again", fields=fields, **measured(project))
    say("plate planned", fields=fields, **measured(project, "--dry-run", "--quiet", "rules"))


def lay_out(project: Path, fields: int) -> None:
    """Make a project with fields and references, each a turned piece of the micrograph."""
    write_network(project / "network", width=16)
    (project / "config").mkdir()
    (project / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    generator = np.random.default_rng(0)
    for kind in ("slides", "references"):
        (project / "data" / kind / "plate").mkdir(parents=True)
    for number in range(fields):
        top, left, turns = generator.integers(0, (SIDE_PX, SIDE_PX, 4))
        for kind, pixels in zip(("slides", "references"), demo_images(), strict=True):
            piece = np.rot90(pixels[top : top + SIDE_PX, left : left + SIDE_PX], turns)
            tifffile.imwrite(project / "data" / kind / "plate" / f"{number:04d}.tif", piece, compression="zlib")


def ledgers(stage: str) -> list[Entries]:
    """Return the ledgers of all batches of a stage; every sample has to be done."""
    found = [read_ledger(path) for path in sorted(Path(paths.LEDGERS, stage).rglob("*.json"))]
    failures = [entry.failure for ledger in found for entry in ledger.values() if entry.failure]
    if failures:
        raise RuntimeError(failures)
    return found


def measured_by_snakemake() -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds, and the peak memory in MB, of each job of the current project."""
    times: dict[str, float] = {}
    peaks: dict[str, float] = {}
    for path in sorted(Path("benchmarks").rglob("*.tsv")):
        (row,) = csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t")
        job = path.relative_to("benchmarks").with_suffix("").as_posix()
        times[job] = float(row["s"])
        peaks[job] = 0.0 if row["max_rss"] == "NA" else float(row["max_rss"])
    return times, peaks


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
