"""A project whose runs are killed: how they are started, what is at work in them, and what they have made."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy
import tifffile
from scipy import ndimage

from tests.support.paths import ROOT
from tests.support.workflow import Project

CONFIG = {
    "models": {
        "net": {
            "options": {"width": 2, "depth": 2},
            "patch_px": 64,
            "batch_size": 4,
            "max_steps": 160,
            "max_minutes": 1000.0,  # never what ends it, however slow the machine
            "validate_every": 10,
        }
    },
    "tiling": {"tile_px": 512, "skip_glass": False},
    "training": {"kind": "classes"},
}
SAMPLES = {"alone": (2100, 1500), "plate/a": (1300, 1000), "plate/b": (300, 400)}

# The log of one job of every stage (of the last batch of a folder), which begins with its command, and what it makes.
MADE_BY = {
    "weigh": ("logs/weigh/net.log", "results/weights"),
    "train": ("logs/train/net.log", "results/models"),
    "tile": ("logs/tile/net/alone.log", "results/plans/net/alone.json"),
    "predict": ("logs/predict/net/plate/*.log", "results/predictions"),
    "stitch": ("logs/stitch/net/plate/a.log", "results/masks/net/plate/a.ome.tiff"),
    "objects": ("logs/objects/net/plate/a.log", "results/objects/net/plate/a.csv"),
    "inspect": ("logs/inspect/alone.log", "results/appearance/alone.json"),
    "evaluate": ("logs/evaluate/net/plate/a.log", "results/metrics/net/plate/a.csv"),
    "report": ("logs/report.log", "results/report.html"),
}


def make_project(folder: Path) -> Project:
    """Four annotated images, a slide dropped alone and a folder of two, one slide with a reference."""
    project = Project(folder)
    project.configure(**CONFIG)
    generator = np.random.default_rng(1)
    for name in "abcd":
        pixels, labels = blobs(generator, (96, 96))
        project.drop(f"training/images/{name}.tif", pixels)
        project.drop(f"training/labels/{name}.tif", labels)
    for sample, shape in SAMPLES.items():
        pixels, labels = blobs(generator, shape)
        project.drop(f"slides/{sample}.tif", pixels)
        if sample != "alone":
            project.drop(f"references/{sample}.tif", labels)
    return project


def blobs(generator: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bright objects in noise, and where they are: two (rows, columns) uint8 arrays."""
    labels = ndimage.gaussian_filter(generator.standard_normal(shape), 8) > 0.03
    return (labels * 90 + generator.integers(0, 60, shape)).astype(np.uint8), labels.astype(np.uint8)


def replace_slides(project: Project, *samples: str) -> None:
    """Put slides in their own place, so that they are segmented again."""
    for sample in samples:
        (project.folder / "data" / "slides" / f"{sample}.tif").touch()


def start(project: Project, *, log: Path | None = None) -> subprocess.Popen[str]:
    """Start a run in a session of its own, so that all its processes can be found; what it says goes to a file."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(project.folder)]
    with (log or project.folder / "run.log").open("w") as said:
        return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, text=True, start_new_session=True)


def end_of(project: Project) -> str:
    """What the last run said."""
    return (project.folder / "run.log").read_text()


def processes(run: subprocess.Popen[str]) -> dict[int, list[str]]:
    """The live processes of a run, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == run.pid:
                words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
                if words:  # a dead one has none
                    found[int(entry.name)] = [word.decode() for word in words]
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def stages(run: subprocess.Popen[str]) -> set[str]:
    """The stages that are at work in a run."""
    commands = processes(run).values()
    return {words[3] for words in commands if words[1:3] == ["-m", "pipeline"] and len(words) > 3}


def wait_for(project: Project, run: subprocess.Popen[str], stage: str) -> None:
    """Wait until a stage is at work in a run."""
    while stage not in stages(run):
        assert run.poll() is None, end_of(project)
        time.sleep(0.02)


def kill(run: subprocess.Popen[str]) -> None:
    """Kill all of a run at once, as a power cut does."""
    os.killpg(run.pid, signal.SIGKILL)
    for process in processes(run):  # none, unless a job made a group of its own
        os.kill(process, signal.SIGKILL)
    run.wait()
    while processes(run):
        time.sleep(0.01)


def command(project: Project, stage: str) -> list[str]:
    """Return the stage and flags of its job, from its log."""
    log = max(project.folder.glob(MADE_BY[stage][0]), key=lambda path: path.stat().st_mtime_ns)
    first = log.read_text().splitlines()[0]
    return shlex.split(first.split(": ", 1)[1])[3:]


def forget(project: Project, stage: str) -> None:
    """Remove what that job made."""
    made = project.folder / MADE_BY[stage][1]
    if made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink(missing_ok=True)


def check_complete(project: Project) -> None:
    """Whatever has its final name can be read to its end."""
    for path in (project.folder / "results").rglob("*"):
        if path.is_dir() or any(part.startswith(".partial-") for part in path.parts):
            continue
        if path.suffix == ".tiff":
            tifffile.imread(path)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
        elif path.suffix in {".json", ".geojson"}:
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            safetensors.numpy.load_file(path)
        elif path.suffix == ".csv":
            assert path.read_text().endswith("\n"), path
        elif path.suffix in {".html", ".svg"}:
            assert path.read_text().rstrip().endswith(">"), path


def results(project: Project) -> dict[str, object]:
    """All that must not depend on what a run went through; model.json has times, and masks its SHA-256."""
    folder = project.folder / "results"
    found: dict[str, object] = {
        "weights": (folder / "models" / "net" / "model.safetensors").read_bytes(),
        "slides": sorted(project.metrics().index),
    }
    for path in sorted((folder / "masks").rglob("*.ome.tiff")):
        with tifffile.TiffFile(path) as tiff:
            found[path.name] = [series.asarray().tobytes() for series in tiff.series]
    for path in sorted(
        [folder / "metrics.csv", *(folder / "metrics").rglob("*.csv"), *folder.glob("objects/**/*.csv")]
    ):
        table = pd.read_csv(path)
        found[str(path.relative_to(folder))] = table[[name for name in table if "sha256" not in name]].to_csv()
    return found
