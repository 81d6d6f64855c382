"""A project folder that tests run with the real Snakemake."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import yaml

from tests.support.networks import CLASSES
from tests.support.paths import ROOT


@dataclass(frozen=True)
class Project:
    """A project folder, and what a user does with it; ``prefix`` is put before every command."""

    folder: Path
    prefix: tuple[str, ...] = ()

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, sys.executable, "-m", "snakemake", "--cores", "2"]
        command += ["--directory", str(self.folder), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    def planned(self) -> dict[str, int]:
        """The jobs that a run would start, by rule."""
        done = self.snakemake("--dry-run", "--quiet", "rules")
        assert done.returncode == 0, done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        table = [line.split() for line in lines]
        return {
            words[0]: int(words[1]) for words in table if len(words) == 2 and words[1].isdigit() and words[0] != "total"
        }

    def configure(self, **settings: object) -> None:
        config = {"settle_s": 0, "classes": CLASSES, "models": {"net": {"checkpoint": "network/model.safetensors"}}}
        config |= settings
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))

    def drop(self, name: str, pixels: np.ndarray | bytes) -> Path:
        """Put an image below data/."""
        path = self.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(pixels, bytes):
            path.write_bytes(pixels)
        else:
            tifffile.imwrite(path, pixels)
        return path

    def metrics(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "results" / "metrics.csv", dtype={"sample": str}).set_index("sample")

    def comparison(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "results" / "comparison.csv").set_index("model")

    def cohort(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "results" / "cohort.csv")

    def masks(self) -> dict[str, int]:
        """Modification time of every mask."""
        folder = self.folder / "results" / "masks" / "net"
        return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.ome.tiff")}
