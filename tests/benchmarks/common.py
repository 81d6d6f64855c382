"""What the benchmarks share: slides made of real micrographs, networks, jobs as separate processes, printed figures."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch
import yaml

from pipeline.base import paths
from pipeline.base.arrays import blocks
from pipeline.project.stage_settings import stage_config
from pipeline.runtime.device import set_up_process
from pipeline.settings.schema import Settings
from pipeline.tiling.mirror_padding import mirror
from tests.support.commands import run_stage
from tests.support.networks import CLASSES
from tests.support.paths import DATA, ROOT

THREADS = len(os.sched_getaffinity(0))  # fewer than the machine has under `taskset`


def say(figure: str, **values: object) -> None:
    """Print one figure as a JSON line."""
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"figure": figure, **rounded}), flush=True)


def say_machine() -> None:
    """Print on which machine the figures were measured."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    say(
        "machine",
        processor=names[0] if names else platform.processor(),
        cores=THREADS,
        capability=torch.backends.cpu.get_cpu_capability(),
        cuda=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        torch=torch.__version__,
        system=platform.platform(),
    )


def set_up() -> torch.device:
    """Set up this process and return its device, without reserving it: the jobs that a benchmark starts use it too."""
    set_up_process(THREADS)
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def micrographs() -> np.ndarray:
    """Return four electron micrographs side by side, (1024, 1024) uint8."""
    slices = [tifffile.imread(DATA / "isbi2012" / "images" / f"{number:02d}.tif") for number in range(20, 24)]
    return np.block([slices[:2], slices[2:]])


def write_slide(path: Path, shape: tuple[int, int], *, side: int = 512) -> None:
    """Write a tiled, compressed slide of any size, filled with mirrored copies of micrographs."""
    pixels = micrographs()
    rows, columns = (mirror(0, -(-length // side) * side, 1024) for length in shape)

    def tiles() -> Iterator[np.ndarray]:
        for down, across in blocks(shape, (side, side)):
            yield pixels[rows[down.start : down.start + side]][:, columns[across.start : across.start + side]]

    tifffile.imwrite(
        path,
        tiles(),
        shape=shape,
        dtype=np.uint8,
        tile=(side, side),
        compression="zlib",
        bigtiff=True,
        resolution=(1e4 / 0.5, 1e4 / 0.5),
        resolutionunit="CENTIMETER",
    )


def train_network(folder: Path, *, width: int, minutes: float) -> Path:
    """Train a U-Net on micrographs that are in no slide; return the path of its weights."""
    settings = Settings.model_validate(
        {
            "classes": CLASSES,
            "training": {"kind": "classes", "values": [0, 255], "validation": 0.1},
            "models": {"unet": {"options": {"width": width}, "loss": {"boundary_weight": 0}} | by_time(minutes)},
        }
    )
    images, labels = folder / "images", folder / "labels"
    for ours, theirs in ((images, "images"), (labels, "masks")):
        ours.mkdir()
        for number in range(20):
            (ours / f"{number:02d}.tif").symlink_to((DATA / "isbi2012" / theirs / f"{number:02d}.tif").resolve())
    return run_training(folder, settings, images, labels)


def by_time(minutes: float) -> dict[str, float]:
    """Return the settings of a training that ends by time."""
    return {"max_minutes": float(minutes), "max_steps": 10**6}


def run_training(folder: Path, settings: Settings, images: Path, labels: Path) -> Path:
    """Run the jobs that train the network ``unet`` in a folder; return the path of its weights, with history.csv."""
    pairs = ["--model=unet", "--images", str(images.resolve()), "--labels", str(labels.resolve()), "--memory-mb=4000"]
    maps = f"--weight-maps={paths.WEIGHT_MAPS.format(model='unet')}"
    with contextlib.chdir(folder):
        run_stage(["weigh", *pairs, "--config", stage_config(settings, "weigh", "unet")])
        words = ["train", *pairs, maps, f"--threads={THREADS}", "--devices=1"]
        run_stage([*words, "--config", stage_config(settings, "train", "unet")])
    network = folder / paths.NETWORK.format(model="unet")
    if not network.exists():
        raise RuntimeError((folder / paths.NETWORK_LEDGER.format(stage="train", model="unet")).read_text("utf-8"))
    return network


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """Make an empty folder the current one, and remove it afterwards."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield Path(folder)


def run_example(
    folder: Path,
    example: str,
    changes: dict[str, Any],
    shown: list[str],
    *,
    masks: dict[str, object] | None = None,
    cores: int = THREADS,
) -> dict[str, dict[str, float]]:
    """Run an example with changes to its networks; return the training steps and the means of some metrics, by model.

    Several networks share ``max_minutes``, and each has a seed of its own. ``masks`` replaces that part of its
    configuration. A folder that has the example goes on from there.
    """
    project = folder / example
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SLIDEMILL_DATA": str(DATA)}
    lay_out = ROOT / "config" / "examples" / "lay_out.py"
    subprocess.run([sys.executable, lay_out, example, project], check=True, env=environment)
    settings = project / "config" / "config.yaml"
    content = yaml.safe_load(settings.read_text(encoding="utf-8"))
    networks = content["models"]
    for number, network in enumerate(networks.values()):
        share = changes["max_minutes"] / len(networks)
        seed = changes.get("seed", 0) * len(networks) + number
        network.update(changes | {"max_minutes": share, "seed": seed})
    content |= {"masks": masks} if masks else {}
    settings.write_text(yaml.safe_dump(content), encoding="utf-8")
    snakemake = [shutil.which("snakemake"), "--cores", str(cores), "--quiet", "all"]
    subprocess.run([*snakemake, "--snakefile", ROOT / "Snakefile", "--directory", project], check=True, env=environment)
    histories = [project / "results" / "models" / name / "history.csv" for name in networks]
    steps = float(np.mean([pd.read_csv(history)["step"].max() for history in histories]))
    means = pd.read_csv(project / "results" / "metrics-all.csv").groupby("model")[shown].mean()
    return {str(model): {"steps": steps} | row.to_dict() for model, row in means.iterrows()}
