"""Runs of a project in the background: start them, find their processes, kill them, check what they made."""

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

import pandas as pd
import safetensors.numpy
import tifffile

from tests.support.paths import ROOT
from tests.support.workflow import Project

# One job of every stage: its log, whose first line is its command, and a result of it.
MADE_BY = {
    "weigh": ("logs/weigh/net.log", "results/weight_maps"),
    "train": ("logs/train/net.log", "results/models"),
    "tile": ("logs/tile/net/0001.log", "results/plans/net/alone.json"),
    "predict": ("logs/predict/net/plate/0001.log", "results/predictions/net/plate"),
    "stitch": ("logs/stitch/net/plate/0001.log", "results/masks/net/plate/a.ome.tiff"),
    "objects": ("logs/objects/net/plate/0001.log", "results/objects/net/plate/a.csv"),
    "evaluate": ("logs/evaluate/net/plate/0001.log", "results/metrics/net/plate/a.csv"),
    "report": ("logs/report.log", "results/report.html"),
    "finish": ("logs/finish.log", "results/finished.txt"),
}


def replace_slides(project: Project, *samples: str) -> None:
    """Change the time of slides, so that they are segmented again."""
    for sample in samples:
        project.slide(sample).touch()


def start(project: Project, *, log: Path | None = None) -> subprocess.Popen[str]:
    """Start a run in a session of its own, by which all its processes are found; its messages go to a file."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(project.folder)]
    with (log or project.folder / "run.log").open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, text=True, start_new_session=True)


def messages(project: Project) -> str:
    """What the last run printed."""
    return (project.folder / "run.log").read_text()


def finish(project: Project) -> str:
    """Run to the good end; return what was printed."""
    run = start(project)
    assert run.wait() == 0, messages(project)
    return messages(project)


def processes(run: subprocess.Popen[str]) -> dict[int, list[str]]:
    """The live processes of a run, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == run.pid:
                words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
                if words:  # a zombie has none
                    found[int(entry.name)] = [word.decode() for word in words]
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


def stages(run: subprocess.Popen[str]) -> set[str]:
    """The stages that are running."""
    commands = processes(run).values()
    return {words[3] for words in commands if words[1:3] == ["-m", "pipeline"] and len(words) > 3}


def wait_for(project: Project, run: subprocess.Popen[str], stage: str) -> None:
    """Wait until a stage is running."""
    while stage not in stages(run):
        assert run.poll() is None, messages(project)
        time.sleep(0.02)


def kill(run: subprocess.Popen[str]) -> None:
    """Kill all processes of a run at once, as a power cut does."""
    os.killpg(run.pid, signal.SIGKILL)
    for process in processes(run):  # those of jobs with a process group of their own
        os.kill(process, signal.SIGKILL)
    run.wait()
    while processes(run):
        time.sleep(0.01)


def command(project: Project, stage: str) -> list[str]:
    """Return the stage and flags of a job, from its log."""
    first = (project.folder / MADE_BY[stage][0]).read_text().splitlines()[0]
    words = shlex.split(first.split(": ", 1)[1])
    return words[words.index(stage) :]


def remove_result(project: Project, stage: str) -> None:
    """Remove the result of that job."""
    made = project.folder / MADE_BY[stage][1]
    if made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink(missing_ok=True)


def check_complete(project: Project) -> None:
    """Check that every result under its final name is complete."""
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
    """Collect all that interruptions must not change; model.json has times, and the metadata of masks its SHA-256."""
    folder = project.folder / "results"
    found: dict[str, object] = {
        "weights": (folder / "models" / "net" / "model.safetensors").read_bytes(),
        "slides": sorted(project.metrics().index),
    }
    for path in sorted((folder / "masks").rglob("*.ome.tiff")):
        with tifffile.TiffFile(path) as tiff:
            found[path.name] = [series.asarray().tobytes() for series in tiff.series]
    for path in sorted(
        [
            folder / "metrics-all.csv",
            folder / "objects.csv",
            folder / "summary.csv",
            *(folder / "metrics").rglob("*.csv"),
            *folder.glob("objects/**/*.csv"),
        ]
    ):
        table = pd.read_csv(path)
        found[str(path.relative_to(folder))] = table[[name for name in table if "sha256" not in name]].to_csv()
    return found
