"""Project folders that tests run with the real Snakemake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import yaml
from scipy import ndimage

from tests.support.networks import CLASSES
from tests.support.paths import ROOT

ODD = '-it\'s; "ünïcode" $(x) µm'
SAMPLES = {"alone": (1100, 800), "plate/a": (700, 600), "plate/b": (300, 400), f"plate/{ODD}": (60, 80)}
NETWORK = {
    "options": {"width": 2, "depth": 2},
    "patch_px": 64,
    "batch_size": 4,
    "max_steps": 160,
    "max_minutes": 1000.0,  # never reached, however slow the machine
    "validate_every": 10,
}
FINISHED = {
    "models": {"net": NETWORK},
    "tiling": {"tile_px": 512, "skip_glass": False},
    "training": {"kind": "classes"},
}


@dataclass(frozen=True)
class Project:
    """A project folder, and what a user does with it.

    ``prefix`` is put before every command; ``python`` runs Snakemake and the jobs: the real one, or tests.support.warm.
    """

    folder: Path
    prefix: tuple[str, ...] = ()
    python: str = sys.executable

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the workflow."""
        command = [*self.prefix, self.python, "-m", "snakemake", "--cores", "2"]
        command += ["--directory", str(self.folder), *arguments]
        environment = os.environ | {"PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def run(self, *arguments: str) -> str:
        """Run the workflow to its good end; return the messages."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def planned(self) -> dict[str, int]:
        """The jobs that a run would start, by rule."""
        done = self.snakemake("--dry-run", "--quiet", "rules")
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in (done.stdout + done.stderr).splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit() and row[0] != "total"}

    def configure(self, **settings: object) -> None:
        """Write the configuration: the defaults of these tests, changed by ``settings``."""
        config = {"settle_s": 0, "classes": CLASSES, "models": {"net": {"checkpoint": "network/model.safetensors"}}}
        (self.folder / "config").mkdir(parents=True, exist_ok=True)
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config | settings))

    def drop(self, name: str, pixels: np.ndarray | bytes) -> Path:
        """Put an image below data/."""
        path = self.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(pixels, bytes):
            path.write_bytes(pixels)
        else:
            tifffile.imwrite(path, pixels)
        return path

    def slide(self, sample: str) -> Path:
        """The file of a slide."""
        return self.folder / "data" / "slides" / f"{sample}.tif"

    def metrics(self) -> pd.DataFrame:
        """The table of all samples."""
        return pd.read_csv(self.folder / "results" / "metrics-all.csv", dtype={"sample": str}).set_index("sample")

    def comparison(self) -> pd.DataFrame:
        """The table of all models."""
        return pd.read_csv(self.folder / "results" / "comparison.csv").set_index("model")

    def masks(self) -> dict[str, int]:
        """Modification time of every mask."""
        folder = self.folder / "results" / "masks" / "net"
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.ome.tiff")}

    def copy_to(self, folder: Path) -> Project:
        """Copy the project with the times of its files."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)


def make_project(folder: Path) -> Project:
    """Four annotated images, a slide in a batch of its own, and a folder of three slides, two with a reference."""
    project = Project(folder)
    project.configure(**FINISHED)
    generator = np.random.default_rng(1)
    for name in "abcd":
        pixels, labels = objects_in_noise(generator, (96, 96))
        project.drop(f"training/images/{name}.tif", pixels)
        project.drop(f"training/labels/{name}.tif", labels)
    for sample, shape in SAMPLES.items():
        pixels, labels = objects_in_noise(generator, shape)
        project.drop(f"slides/{sample}.tif", pixels)
        if sample in ("plate/a", "plate/b"):
            project.drop(f"references/{sample}.tif", labels)
    return project


def objects_in_noise(generator: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bright objects in noise, and their labels: two (rows, columns) uint8 arrays."""
    labels = ndimage.gaussian_filter(generator.standard_normal(shape), 8) > 0.03
    return (labels * 90 + generator.integers(0, 60, shape)).astype(np.uint8), labels.astype(np.uint8)
