"""Time and memory of ``snakemake -n`` for many finished samples and one new one, then of the run that makes it.

Once in batches of a folder of 100, once in batches of one, as from a slide a day for years. The finished samples have
ledgers and empty files (of tables of objects the header, which the report reads), as a run would have left them; the
new one is a real field of 256 x 256 px. Of the run, ``stages_s`` is the time of the jobs that made the new slide,
``rest_s`` that of everything else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

from pipeline.base import paths
from pipeline.project.jobs.expected import STAGES, Expected
from pipeline.project.jobs.ledger import Entry, write_ledger
from pipeline.project.jobs.run import Run
from pipeline.project.jobs.todo import FILES
from pipeline.settings.schema import parse_settings
from tests.benchmarks.common import say, say_machine
from tests.support.networks import CLASSES, write_network
from tests.support.paths import ROOT
from tests.support.slide_files import touch

SLIDES_OF_A_FOLDER = 100
CONFIG = {"settle_s": 0, "classes": CLASSES, "models": {"net": {"checkpoint": "network/model.safetensors"}}}
# What stages measure; numbers that a report can use
FOUND: dict[str, dict[str, Any]] = {
    "tile": {
        "pixels": 65_536,
        "slide_sha256": "0" * 64,
        "appearance": {"intensity": 0.2, "contrast": 0.5, "focus": -0.5},
    },
    "predict": {
        **{"uncertain": 0.01, "tile_mismatch": None, "probabilities": False, "weights_sha256": "0" * 64},
        **{"device": "cpu", "precision": "float32", "threads": 2, "pixels": 65_536, "wall_s": 0.2, "network_s": 0.2},
        **{"reading_s": 0.0, "writing_s": 0.0, "differing_px": 0, "compared_px": 0},
    },
    "stitch": {"mask_sha256": "0" * 64},
    "objects": {
        "objects": 30,
        "median_area_px": 80.0,
        "area_spread": 1.0,
        "class_objects": [0, 30],
        "class_pixels": [60_000, 5_536],
        "class_median_area_px": [None, 80.0],
        "pixel_size_um": None,
        "picture_px": [256, 256],
        "regions": 0,
        "warnings": [],
        "marked": 30,
        "histograms": {
            name: {"low": 20.5, "high": 311.2, "counts": [2] * 15}
            for name in ("area_px", "circularity", "mean_intensity_0", "eccentricity")
        },
    },
    "evaluate": {
        "metrics": {
            "pixels": 65_536,
            "foreground_dice": 0.85,
            "dice_mean": 0.9,
            "dice_background": 0.95,
            "dice_object": 0.85,
        }
    },
}
# `python -m snakemake` that ends by printing its peak memory and processor time.
_MEASURED = """
import sys, time
from snakemake.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*[line for line in open("/proc/self/status") if line.startswith("VmHWM")], "cpu_s", time.process_time())
"""
_SAID = {"total", "VmHWM:", "cpu_s"}


def main() -> None:
    """Print the machine, then the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to lay out the projects, and leave them")
    known = parser.parse_args()
    say_machine()
    with tempfile.TemporaryDirectory() as scratch:
        for of_batch in (SLIDES_OF_A_FOLDER, 1):
            project = (known.folder or Path(scratch)).resolve() / f"{of_batch}"
            project.mkdir(parents=True)
            header = project / "no-objects.csv"
            header.write_text("id,class\n", encoding="utf-8")
            lay_out(project, known.samples, of_batch, contents={paths.OBJECTS: header})
            bench(project, known.samples, of_batch)


def bench(project: Path, samples: int, of_batch: int) -> None:
    """Plan with nothing to do, and with a new slide; then run."""
    about = {"samples": samples, "samples_of_a_batch": of_batch}
    for new in (0, 1):
        if new:
            pixels = np.random.default_rng(0).integers(0, 255, (256, 256)).astype(np.uint8)
            tifffile.imwrite(project / "data" / "slides" / "new.tif", pixels)
        say("planning", **about, new=new, **measured(project, "--dry-run", "--quiet", "rules"))
    run = measured(project)
    stages_s = seconds_of_stages(project)
    say("run of one new slide", **about, **run, stages_s=stages_s, rest_s=run["wall_s"] - stages_s)


def seconds_of_stages(project: Path) -> float:
    """Return the time of all jobs of batches that Snakemake has run in a project; one after the other, as one slide."""
    files = [file for stage in STAGES for file in (project / "benchmarks" / stage).rglob("*.tsv")]
    return sum(float(file.read_text(encoding="utf-8").splitlines()[1].split()[0]) for file in files)


def measured(project: Path, *arguments: str) -> dict[str, float]:
    """Return wall and processor time in s, peak memory in MB and the number of jobs of Snakemake."""
    words = [sys.executable, "-c", _MEASURED, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(project)]
    words += ["--workflow-profile", str(ROOT / "profiles" / "default"), "--cores", "2", *arguments]
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    lines = (done.stdout + done.stderr).splitlines()
    said = {words[0]: float(words[1]) for line in lines if len(words := line.split()) > 1 and words[0] in _SAID}
    peak_mb = said["VmHWM:"] * 1024 / 1e6
    return {"wall_s": wall_s, "cpu_s": said["cpu_s"], "peak_mb": peak_mb, "jobs": said.get("total", 0)}


def lay_out(
    project: Path,
    samples: int,
    of_batch: int,
    *,
    contents: Mapping[str, Path] | None = None,
    measured: Callable[[str, str], dict[str, Any]] = lambda stage, _: FOUND[stage],
) -> None:
    """Make a project with this many samples, all finished.

    Their files are empty, or links to those in ``contents`` (by pattern); ``measured`` returns what a stage found of a
    sample.
    """
    write_network(project / "network", width=4, depth=2)
    config = CONFIG | {"batches": {"samples": of_batch}}
    (project / "config").mkdir()
    (project / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    names = [f"plate{number // SLIDES_OF_A_FOLDER:03d}/slide{number:05d}" for number in range(samples)]
    touch(project / "data", *(f"{kind}/{name}.tif" for kind in ("slides", "references") for name in names))
    here = Path.cwd()
    os.chdir(project)
    try:
        run = Run.find(parse_settings(config, source=""), is_main=True, on_cluster=False, waits=False)
        finish(run, contents or {}, measured)
    finally:
        os.chdir(here)


def finish(run: Run, contents: Mapping[str, Path], measured: Callable[[str, str], dict[str, Any]]) -> None:
    """Write the ledgers and files of all jobs of a run."""
    run.begin("snakemake")
    expected = Expected(run.settings)
    for job in run.todo.jobs:
        with write_ledger(Path(job.ledger), stage=job.stage, model=job.model, batch=job.batch) as writer:
            for name in run.batches[job.batch]:
                files = {pattern.format(model=job.model, sample=name): pattern for pattern in FILES[job.stage]}
                for path, pattern in files.items():
                    if pattern in contents:
                        Path(path).parent.mkdir(parents=True, exist_ok=True)
                        Path(path).hardlink_to(contents[pattern])
                    else:
                        touch(Path(), path)
                wanted, found = expected.of(job.model, run.samples[name])[job.stage], measured(job.stage, name)
                writer.record(name, Entry(fingerprint=wanted, files=list(files), found=found, seconds=0.1))
    run.end(has_lost_jobs=False)


if __name__ == "__main__":
    main()
