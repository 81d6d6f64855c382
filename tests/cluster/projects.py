"""The demo with a short training, and runs of it on this machine and through the cluster."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tifffile
import yaml

from tests.support.paths import ROOT

ODD = '-a; "ünïcode" $(x) µm'
_COMMAND = [sys.executable, "-m", "snakemake"]
# The number of threads decides about the last bits of a sum, and a node may have fewer cores than it claims.
_ONE_THREAD = ["--max-threads", "1"]
_ON_SLURM = ["--workflow-profile", "slurm", "--slurm-status-command", "squeue", "--latency-wait", "20"]
_ON_SLURM += ["--slurm-init-seconds-before-status-checks", "2", "--max-status-checks-per-second", "2"]
_WITHIN_S = 1200  # beside other tests


@dataclass(frozen=True)
class Project:
    """A project folder."""

    folder: Path

    @property
    def masks(self) -> dict[str, str]:
        """SHA-256 of every mask."""
        return {name: _sha256(path.read_bytes()) for name, path in self._mask_files().items()}

    @property
    def pixels(self) -> dict[str, str]:
        """SHA-256 of the classes and object ids of every mask: a mask file has the training time of its network too."""
        found = {}
        for name, path in self._mask_files().items():
            with tifffile.TiffFile(path) as tiff:
                found[name] = _sha256(b"".join(series.asarray().tobytes() for series in tiff.series))
        return found

    @property
    def weights(self) -> str:
        """SHA-256 of the weights that were trained."""
        return _sha256((self.folder / "results" / "models" / "unet" / "model.safetensors").read_bytes())

    @property
    def statuses(self) -> dict[str, str]:
        """Status of every sample in the report."""
        table = pd.read_csv(self.folder / "results" / "metrics.csv", dtype={"sample": str})
        return dict(zip(table["sample"].str.removeprefix("'"), table["status"], strict=True))

    def _mask_files(self) -> dict[str, Path]:
        folder = self.folder / "results" / "masks"
        return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.ome.tiff"))}

    def run_here(self) -> None:
        """Run the workflow on this machine."""
        command = [*_COMMAND, *_ONE_THREAD, "--cores", "2", "--directory", str(self.folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        assert done.returncode == 0, done.stderr

    def run_on_slurm(self) -> Run:
        """Begin a run of the workflow through the cluster."""
        return Run(self.folder)


class Run:
    """A run through the cluster, in the background."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "run.log"
        command = [*_COMMAND, *_ONE_THREAD, *_ON_SLURM, "--directory", str(folder)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def wait(self) -> int | None:
        """Return the exit status, or None if it does not end."""
        try:
            return self._process.wait(timeout=_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End it if it is still running."""
        if not self.has_ended:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def job_ids(self) -> list[str]:
        """The jobs that it has submitted."""
        return re.findall(r"SLURM jobid (\d+)", self.text)


def trained_demo(folder: Path) -> Project:
    """The demo, trained for some steps, its slides as one batch; one name has to be quoted in a shell."""
    lay_out = [sys.executable, str(ROOT / "config" / "examples" / "lay_out.py"), "demo", str(folder)]
    subprocess.run(lay_out, check=True)
    settings = _read(folder)
    settings["models"]["unet"] |= {"options": {"width": 4, "depth": 2}, "max_steps": 10, "max_minutes": 5}
    _write(folder, settings)
    for kind in ("slides", "references"):
        dropped = folder / "data" / kind
        dropped.rename(folder / "data" / "plate")
        dropped.mkdir()
        (folder / "data" / "plate").rename(dropped / "plate")
    shutil.copyfile(folder / "data/slides/plate/nuclei.tif", folder / f"data/slides/plate/{ODD}.tif")
    return Project(folder)


def demo_with_network(folder: Path, trained: Project) -> Project:
    """The demo with the network of a finished project."""
    shutil.copytree(trained.folder / "data", folder / "data")
    shutil.copytree(trained.folder / "results" / "models" / "unet", folder / "network")
    settings = _read(trained.folder)
    settings["models"]["unet"] = {"checkpoint": "network/model.safetensors"}
    _write(folder, settings)
    return Project(folder)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(folder: Path) -> dict[str, dict[str, object]]:
    return yaml.safe_load((folder / "config" / "config.yaml").read_text(encoding="utf-8"))


def _write(folder: Path, settings: dict[str, dict[str, object]]) -> None:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
