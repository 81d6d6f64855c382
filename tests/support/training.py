"""Small trainings: on arrays, and on files by the command."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch

import models
from pipeline.__main__ import main
from pipeline.project.stage_settings import stage_config
from pipeline.settings.networks import AugmentationConfig, ModelConfig, OptimizerConfig, ResolvedConfig
from pipeline.settings.schema import Settings
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
CPU = [torch.device("cpu")]


def squares(seed, side=96):
    """Bright squares on a dark ground, with noise."""
    generator = np.random.default_rng(seed)
    classes = np.zeros((side, side), np.uint8)
    for top, left in generator.integers(0, side - 16, (6, 2)):
        classes[top : top + 14, left : left + 14] = 1
    image = (classes + generator.normal(0, 0.3, classes.shape)).astype(np.float32)
    return Annotated(name=str(seed), image=image[None], classes=classes, weights=np.ones(classes.shape, np.float16))


def train_in(folder, devices=CPU, **settings):
    torch.manual_seed(0)
    network = models.build(
        settings.get("architecture", "unet"),
        in_channels=1,
        num_classes=2,
        options=settings.pop("options", {"width": 4, "depth": 2}),
    )
    task = Task(
        network=network,
        training=[squares(1), squares(2)],
        validation=[squares(3)],
        classes=["background", "square"],
        config=ResolvedConfig(**CONFIG | settings),
        identity=str(settings),
        history=folder / "history.csv",
        folder=folder / "training",
    )
    best = train_network(task, devices)
    return network, best, pd.read_csv(folder / "history.csv")


class Project:
    """Three annotated images with their weight maps, and the command that trains on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(models={"unet": NETWORK})
        generator = np.random.default_rng(1)
        for name in "abc":
            labels = np.kron(generator.integers(0, 2, (6, 6)), np.ones((8, 8))).astype(np.uint8)
            for kind, pixels in {
                "images": labels * 90 + generator.integers(0, 60, labels.shape),
                "labels": labels,
            }.items():
                (folder / kind).mkdir(exist_ok=True)
                tifffile.imwrite(folder / kind / f"{name}.tif", pixels.astype(np.uint8))
        places = ["--images", str(folder / "images"), "--labels", str(folder / "labels"), "--memory-mb", "100"]
        assert main(["weigh", *places, "--output", str(folder / "weight-maps"), "--config", self.config("weigh")]) == 0

    def with_network(self, network: ModelConfig) -> Project:
        """The same images, another network."""
        other = copy.copy(self)
        other.settings = Settings(models={"unet": network})
        return other

    def config(self, stage: str) -> str:
        return stage_config(self.settings, stage, "unet")

    def start(self, name: str, devices: int = 1) -> subprocess.Popen[str]:
        places = [f"--{kind}={self.folder / kind}" for kind in ("images", "labels", "weight-maps")]
        output = self.folder / name / "model.safetensors"
        files = [f"--output={output}", f"--history={output.with_name('history.csv')}", "--memory-mb=100"]
        command = [sys.executable, "-m", "pipeline", "train", *places, *files, "--threads=2", f"--devices={devices}"]
        return subprocess.Popen(
            [*command, "--config", self.config("train")], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )

    def train(self, name: str, devices: int = 1) -> str:
        """Train to the end; return the log."""
        with self.start(name, devices) as job:
            _, log = job.communicate()
        assert job.returncode == 0, log
        return log

    def history(self, name: str) -> pd.DataFrame:
        path = self.folder / name / "history.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    def weights(self, name: str) -> str:
        return hashlib.sha256((self.folder / name / "model.safetensors").read_bytes()).hexdigest()
