"""What the benchmarks share: slides made of real micrographs, networks, jobs as separate processes, printed figures."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
import yaml

from pipeline.base.arrays import blocks
from pipeline.networks.model_card import card_path
from pipeline.project.sample_ids import folder_of
from pipeline.project.stage_settings import stage_config
from pipeline.settings.schema import Settings
from pipeline.tiling.mirror_padding import mirror
from tests.support.commands import run_stage
from tests.support.networks import CLASSES
from tests.support.paths import DATA, ROOT
from tests.support.slide_files import write_batch

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
    """Run the jobs that train the network ``unet``; return the path of its weights, beside which is history.csv."""
    weights, network = folder / "weights", folder / "model.safetensors"
    pairs = ("--images", images, "--labels", labels, "--memory-mb", 4000)
    run_stage("weigh", *pairs, "--output", weights, config=stage_config(settings, "weigh", "unet"))
    files = ("--weight-maps", weights, "--output", network, "--history", folder / "history.csv")
    with_all = (*pairs, *files, "--threads", THREADS, "--devices", 1)
    run_stage("train", *with_all, config=stage_config(settings, "train", "unet"))
    return network


def run_example(folder: Path, example: str, changes: dict[str, object], shown: list[str]) -> dict[str, float]:
    """Run an example with changes to its ``unet``; return its training steps and the means of some metrics."""
    project = folder / example
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SLIDEMILL_DATA": str(DATA)}
    lay_out = ROOT / "config" / "examples" / "lay_out.py"
    subprocess.run([sys.executable, lay_out, example, project], check=True, env=environment)
    settings = project / "config" / "config.yaml"
    content = yaml.safe_load(settings.read_text(encoding="utf-8"))
    content["models"]["unet"] |= changes
    settings.write_text(yaml.safe_dump(content), encoding="utf-8")
    snakemake = [shutil.which("snakemake"), "--cores", str(THREADS), "--quiet", "all"]
    subprocess.run([*snakemake, "--snakefile", ROOT / "Snakefile", "--directory", project], check=True, env=environment)
    history = pd.read_csv(project / "results" / "models" / "unet" / "history.csv")
    means = pd.read_csv(project / "results" / "metrics.csv")[shown].mean().to_dict()
    return {"steps": int(history["step"].max())} | means


class Project:
    """A folder with a network; its methods run one stage each, as a job of the workflow does."""

    def __init__(self, folder: Path, weights: Path, *, memory_mb: int = 4000, **settings: object) -> None:
        self.folder, self.weights, self.memory_mb = folder, weights, memory_mb
        self.settings = Settings.model_validate({"classes": CLASSES, **settings})
        self._planned: list[str] = []

    def tile(self, sample: str, slide: Path) -> tuple[float, int]:
        """Plan a slide."""
        if sample not in self._planned:
            self._planned.append(sample)
        return self._run(
            "tile",
            f"--sample={sample}",
            *("--slide", slide, "--model", card_path(self.weights), "--output", self.plan(sample)),
            *("--memory-mb", self.memory_mb),
        )

    def plan_alike(self, sample: str, others: list[str]) -> None:
        """Copy the plan of a sample to others, which are the same slide under other names."""
        self._planned += others
        for other in others:
            self.plan(other).write_text(self.plan(sample).read_text().replace(sample, other))

    def predict(self, batch: str) -> tuple[float, int]:
        """Predict the planned slides of a batch."""
        members = [sample for sample in self._planned if folder_of(sample) == batch]
        write_batch(self.folder / "slides.json", batch, members)
        return self._run(
            "predict",
            *("--network", self.weights, "--plans", self.folder / "plans"),
            *("--slides", self.folder / "slides.json", f"--batch={batch}"),
            *("--output", self.prediction(batch), "--speed", self.speed(batch)),
            *("--threads", THREADS, "--memory-mb", self.memory_mb),
        )

    def stitch(self, sample: str, batch: str) -> tuple[float, int]:
        """Make the mask of a predicted slide."""
        return self._run(
            "stitch",
            f"--sample={sample}",
            *("--prediction", self.prediction(batch), "--plan", self.plan(sample)),
            *("--model", card_path(self.weights), "--output", self.folder / f"masks/{sample}.ome.tiff"),
        )

    def plan(self, sample: str) -> Path:
        """Return the path of the plan of a sample."""
        return self.folder / f"plans/{sample}.json"

    def prediction(self, batch: str) -> Path:
        """Return the path of the prediction of a batch."""
        return self.folder / f"{batch}.zarr.zip"

    def speed(self, batch: str) -> Path:
        """Return the path of the measured speed of a batch."""
        return self.folder / f"{batch}.json"

    def _run(self, stage: str, *flags: object) -> tuple[float, int]:
        return run_stage(stage, *flags, config=stage_config(self.settings, stage))
