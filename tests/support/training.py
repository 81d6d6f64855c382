"""Small trainings: on arrays, and on files by the command."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch

import models
from pipeline.__main__ import main
from pipeline.base import paths
from pipeline.base.arrays import LazyArray
from pipeline.project.stage_settings import stage_config
from pipeline.settings.networks import AugmentationConfig, ModelConfig, OptimizerConfig, ResolvedConfig
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.loop import Task, train_network
from tests.support.paths import ROOT

CONFIG = {"patch_px": 64, "batch_size": 2, "max_steps": 60, "validate_every": 30, "learning_rate": 0.01}
STILL = AugmentationConfig(
    flip=False, rotate_deg=0, scale=0, elastic_px=0, brightness=0, contrast=0, gamma=0, noise=0, blur_px=0
)
NETWORK = ModelConfig(
    options={"width": 2, "depth": 1},
    patch_px=32,
    batch_size=4,
    max_steps=16,
    validate_every=4,
    learning_rate=0.01,
    optimizer=OptimizerConfig(average=0.9),
    precision="float32",  # in bfloat16, two processes differ by the rounding of every activation
)
LIMITS = ("max_steps", "max_minutes", "patience")
FOLDERS = ("--images=images", "--labels=labels")
CPU = [torch.device("cpu")]


def squares(seed, side=96):
    """Bright squares on a dark ground, with noise."""
    generator = np.random.default_rng(seed)
    classes = np.zeros((side, side), np.uint8)
    for top, left in generator.integers(0, side - 16, (6, 2)):
        classes[top : top + 14, left : left + 14] = 1
    image = (classes + generator.normal(0, 0.3, classes.shape)).astype(np.float32)
    return Annotated(name=str(seed), image=image[None], classes=classes, maps=np.ones((1, *classes.shape), np.float16))


def with_targets(annotated: Annotated, count: int) -> Annotated:
    """The same image with targets of heads, which are all 1."""
    return dataclasses.replace(annotated, maps=np.ones((1 + count, *annotated.shape), np.float32))


def on_disk(annotated: Annotated) -> Annotated:
    """The same image with arrays that are computed when a region is read, as those of a large file are."""
    arrays = {name: getattr(annotated, name) for name in ("image", "classes", "maps")}
    lazy = {
        name: LazyArray(array.shape, array.dtype, lambda *key, array=array: array[key])
        for name, array in arrays.items()
    }
    return dataclasses.replace(annotated, in_memory=False, **lazy)


def train_in(folder, devices=CPU, *, source=lambda annotated: annotated, **settings):
    """Train on squares; ``source`` changes how the images are stored."""
    torch.manual_seed(0)
    config = ResolvedConfig(**CONFIG | settings)
    heads = config.heads.names
    network = models.build(
        settings.get("architecture", "unet"),
        in_channels=1,
        num_classes=2,
        heads=heads,
        options=settings.pop("options", {"width": 4, "depth": 2}),
    )
    task = Task(
        network=network,
        training=[source(with_targets(squares(seed), len(heads))) for seed in (1, 2)],
        validation=[source(squares(3))],
        classes=["background", "square"],
        config=config,
        identity=str({name: value for name, value in settings.items() if name not in LIMITS}),
        folder=folder / "training",
    )
    best = train_network(task, devices)
    return network, best, pd.read_csv(task.history)


class Project:
    """Three annotated images in a folder with their weight maps, and the command that trains on them."""

    def __init__(self, folder: Path, network: ModelConfig = NETWORK, channels: int = 1) -> None:
        self.folder = folder
        self.settings = Settings(models={"unet": network}, image=ImageConfig(channels=list(range(channels))))
        generator = np.random.default_rng(1)
        for name in "abc":
            labels = np.kron(generator.integers(0, 2, (6, 6)), np.ones((8, 8))).astype(np.uint8)
            noise = generator.integers(0, 60, (*labels.shape, channels) if channels > 1 else labels.shape)
            for kind, pixels in {
                "images": noise + 90 * labels.reshape(48, 48, *[1] * (noise.ndim - 2)),
                "labels": labels,
            }.items():
                (folder / kind).mkdir(exist_ok=True)
                tifffile.imwrite(folder / kind / f"{name}.tif", pixels.astype(np.uint8))
        with contextlib.chdir(folder):
            assert main(["weigh", "--model=unet", *FOLDERS, "--memory-mb=100", "--config", self.config("weigh")]) == 0
        self.weight_maps = Path(paths.WEIGHT_MAPS.format(model="unet"))

    def with_network(self, network: ModelConfig) -> Project:
        """The same images, another network."""
        other = copy.copy(self)
        other.settings = Settings(models={"unet": network})
        return other

    def config(self, stage: str) -> str:
        return stage_config(self.settings, stage, "unet")

    def _words(self, name: str, devices: int) -> list[str]:
        counts = [f"--threads={devices}", f"--devices={devices}", "--memory-mb=100"]
        words = ["train", f"--model={name}", *FOLDERS, f"--weight-maps={self.weight_maps}", *counts]
        return [*words, "--config", self.config("train")]

    def start(self, name: str, devices: int = 1) -> subprocess.Popen[str]:
        """Start the training of a network of this name in a process, which starts one for each further device."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *self._words(name, devices)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, name: str) -> None:
        """Train to the end in this process."""
        with contextlib.chdir(self.folder):
            assert main(self._words(name, devices=1)) == 0
        assert self.path(name, paths.NETWORK).exists()

    def train_on_two(self, name: str) -> None:
        """Train to the end on two devices."""
        with self.start(name, devices=2) as job:
            _, log = job.communicate()
        assert job.returncode == 0, log
        assert self.path(name, paths.NETWORK).exists(), log

    def path(self, name: str, pattern: str) -> Path:
        """Return the path of a file of a network, such as ``paths.HISTORY``."""
        return self.folder / pattern.format(model=name)

    def history(self, name: str) -> pd.DataFrame:
        """Return the history of the last training of this name, which may go on."""
        path = self.path(name, paths.TRAINING) / "history.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    def weights(self, name: str) -> str:
        return hashlib.sha256(self.path(name, paths.NETWORK).read_bytes()).hexdigest()
