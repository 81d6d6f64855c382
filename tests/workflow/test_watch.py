"""The workflow runs once for each change of the drop folder when slides are complete, until it is stopped.

What is run is a stand-in for Snakemake that looks at the drop folder as the workflow does when it begins.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT
from tests.support.slide_files import touch

STAND_IN = """
import os, signal, sys, time
from pathlib import Path
from pipeline.settings.schema import Settings
from pipeline.project.drop.drop_folder import find_samples, write_samples
os.chdir(sys.argv[sys.argv.index("--directory") + 1])
locked = Path("locked").exists()
if locked:
    Path("locked").unlink()
else:
    write_samples(find_samples(Settings(settle_s=0)), "", "")
with open("runs.txt", "a") as runs:  # a run is one whose list of slides is written: what comes now is a change
    print(*sys.argv[1:], file=runs)
if locked:
    sys.exit(1)
if Path("long").exists():
    try:
        Path("at work").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        Path("cleaned").touch()
"""


@pytest.fixture
def folder(tmp_path):
    """A project to watch."""
    touch(tmp_path, "data/slides/a.tif", "config/config.yaml")
    (tmp_path / "config" / "config.yaml").write_text("settle_s: 0\n")
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "snakemake.py").write_text(STAND_IN)
    return tmp_path


@pytest.fixture
def watching(folder):
    process = None

    def start():
        nonlocal process
        process = subprocess.Popen(
            [sys.executable, ROOT / "workflow" / "watch.py", folder, "--every", "0.1", "--cores", "2"],
            env=os.environ | {"PYTHONPATH": f"{folder / 'stand_in'}{os.pathsep}{ROOT}"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return process

    yield start
    if process and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def runs(folder):
    return (folder / "runs.txt").read_text().splitlines() if (folder / "runs.txt").exists() else []


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_each_change_is_one_run(folder, watching):
    process = watching()
    wait_for(lambda: len(runs(folder)) == 1)
    assert runs(folder)[0].endswith("--cores 2")
    touch(folder, "data/slides/b.tif")
    wait_for(lambda: len(runs(folder)) == 2)
    (folder / "data" / "slides" / "a.tif").unlink()
    wait_for(lambda: len(runs(folder)) == 3)
    time.sleep(2)  # looks many times
    assert len(runs(folder)) == 3
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[1].endswith("watch: stopped\n")
    assert process.returncode == 0


def test_a_run_that_finds_the_project_locked_is_tried_again(folder, watching):
    touch(folder, "locked")
    watching()
    wait_for(lambda: len(runs(folder)) == 2)


def test_ctrl_c_lets_a_run_clean_up(folder, watching):
    touch(folder, "long")
    process = watching()
    wait_for((folder / "at work").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert (folder / "cleaned").exists()
    assert process.returncode == 0


def test_a_wrong_configuration_is_reported_and_watching_goes_on(folder, watching):
    (folder / "config" / "config.yaml").write_text("settle: 0\n")
    process = watching()
    assert "watching" in process.stderr.readline()
    assert "unknown key 'settle'" in process.stderr.readline()
    (folder / "config" / "config.yaml").write_text("settle_s: 0\n")
    wait_for(lambda: len(runs(folder)) == 1)
