"""Time and memory of ``snakemake -n`` for many finished samples, and for one new slide beside them.

Every sample has a reference, so five jobs; a hundred share a batch.

Only names, times and Snakemake's records decide what is planned. So the results are empty files, made for one slide
and touched by Snakemake, which records them as it does after a run; both are then copied for all other slides.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from pipeline.base import paths
from pipeline.project.drop_folder import Sample, find_samples
from pipeline.settings.schema import parse_settings
from tests.benchmarks.common import say, say_machine
from tests.support.paths import ROOT
from tests.support.slide_files import touch

FIRST = "plate000/slide000"
SLIDES_OF_A_FOLDER = 100
RECORDS = Path(".snakemake/metadata")
CONFIG = {"settle_s": 0, "models": {"net": {"checkpoint": "network/model.safetensors"}}}
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
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--folder", type=Path, help="where to lay out the projects, and leave them")
    known = parser.parse_args()
    say_machine()
    with tempfile.TemporaryDirectory() as scratch:
        for samples in known.samples:
            project = (known.folder or Path(scratch)).resolve() / f"{samples}"
            lay_out(project, samples)
            bench(project, samples)


def bench(project: Path, samples: int) -> None:
    """Plan with nothing to do, and with a new slide."""
    for new in (0, 1):
        if new:
            (project / "data" / "slides" / "new.tif").touch()
        say("planning", samples=samples, new=new, **plan(project))


def plan(project: Path) -> dict[str, float]:
    """Return wall and processor time in s, peak memory in MB and the number of jobs of a dry run."""
    words = [sys.executable, "-c", _MEASURED, *command(project)[3:], "--dry-run", "--quiet", "rules"]
    start = time.perf_counter()
    lines = printed_by(words).splitlines()
    wall_s = time.perf_counter() - start
    said = {words[0]: float(words[1]) for line in lines if len(words := line.split()) > 1 and words[0] in _SAID}
    peak_mb = said["VmHWM:"] * 1024 / 1e6
    return {"wall_s": wall_s, "cpu_s": said["cpu_s"], "peak_mb": peak_mb, "jobs": said.get("total", 0)}


def command(project: Path) -> list[str]:
    """Return the command of a run."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(project)]
    return [*words, "--workflow-profile", str(ROOT / "profiles" / "default"), "--cores", "2"]


def snakemake(project: Path, *arguments: str) -> str:
    """Run Snakemake; return what it prints."""
    return printed_by([*command(project), *arguments])


def printed_by(words: list[str]) -> str:
    """Run a command; return what it prints, then its messages."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout + done.stderr


def lay_out(project: Path, samples: int) -> None:
    """Make a project with this many samples, all finished."""
    inputs = [f"data/slides/{FIRST}.tif", f"data/references/{FIRST}.tif"]
    touch(project, "network/model.safetensors", "network/model.json", "config/config.yaml", *inputs)
    (project / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    table = snakemake(project, "--summary").splitlines()[1:]
    touch(project, *(line.partition("\t")[0] for line in table))
    snakemake(project, "--touch", "--forceall")
    before = stock_of(project)[FIRST]
    for number in range(1, samples):
        folder, slide = divmod(number, SLIDES_OF_A_FOLDER)
        for path in inputs:
            copy(project, path, path.replace(FIRST, f"plate{folder:03d}/slide{slide:03d}"))
    (project / paths.SLIDES).unlink()  # then the slides of a folder become one batch
    multiply(project, before, stock_of(project))
    snakemake(project, "--touch")  # only the report, whose list of samples changed


def stock_of(project: Path) -> dict[str, Sample]:
    """Return what a run finds in the drop folder."""
    here = Path.cwd()
    os.chdir(project)
    try:
        return find_samples(parse_settings(CONFIG, source=""))
    finally:
        os.chdir(here)


def multiply(project: Path, before: Sample, stock: dict[str, Sample]) -> None:
    """Copy the results of the first slide, and Snakemake's records of them, for all others."""
    batches = {one.batch: name for name, one in reversed(stock.items())}
    for record in list((project / RECORDS).iterdir()):
        result, known = name_of_record(record), record.read_text()
        whose = batches.values() if before.batch in result else stock if FIRST in result else []
        for name in whose:
            other = renamed(result, before, name, stock[name])
            copy(project, result, other)
            (project / RECORDS / record_of(other)).write_text(renamed(known, before, name, stock[name]))


def renamed(text: str, before: Sample, name: str, sample: Sample) -> str:
    """Replace the name of the first slide in a text by another."""
    return text.replace(before.batch, sample.batch).replace(FIRST, name)


def copy(project: Path, source: str, target: str) -> None:
    """Copy a file with its times, which decide what is up to date."""
    if source != target:
        (project / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / source, project / target)


def record_of(name: str) -> str:
    """Return the file of Snakemake's record of a result (names as short as these need no folder)."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def name_of_record(record: Path) -> str:
    """Return the path of the result that a record is about."""
    return base64.urlsafe_b64decode(record.name).decode()


if __name__ == "__main__":
    main()
