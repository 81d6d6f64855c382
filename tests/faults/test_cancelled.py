"""A cancelled job says so in one line and removes its temporary files; nothing has to be repaired by hand."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.__main__ import main
from tests.support.killing import (
    check_complete,
    command,
    finish,
    remove_result,
    replace_slides,
    results,
    start,
    wait_for,
)
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    return finished.copy_to(tmp_path_factory.mktemp("cancelled") / "project")


def begin(project, stage):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command(project, stage)],
        cwd=project.folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def left(project):
    """The folders with temporary files; locks do not count."""
    walked = os.walk(project.folder / "results")
    return [Path(folder) for folder, _, files in walked if ".partial-" in folder and set(files) - {".lock"}]


def cancel(project, stage, number):
    """Cancel a job while it writes, and return its log; try again if it ended before the signal came."""
    for _ in range(5):
        remove_result(project, stage)
        with begin(project, stage) as job:
            while job.poll() is None and not left(project):
                time.sleep(0.005)
            job.send_signal(number)
            log = job.communicate()[1]
        if "stopped by" in log:
            assert job.returncode == 1, log
            return log
    pytest.fail(f"{stage} always ended before the signal came")


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("train", signal.SIGTERM),
        ("predict", signal.SIGTERM),
        ("stitch", signal.SIGTERM),
        ("predict", signal.SIGINT),
        ("stitch", signal.SIGHUP),
    ],
)
def test_a_cancelled_stage_says_so_and_clears_its_files(project, monkeypatch, stage, number):
    log = cancel(project, stage, number)
    assert f"\nerror: {stage}: stopped by {number.name} (cancelled, or" in log
    assert "run the same command again [Stopped]\n" in log
    assert "Traceback" not in log
    journals = (".zarr.zip", ".json") if stage == "predict" else (".json",)  # of predictions, of ledgers
    assert all(path.name.endswith(journals) for path in left(project))
    check_complete(project)
    monkeypatch.chdir(project.folder)
    assert main(command(project, stage)) == 0
    assert not left(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_ends_in_order_and_the_next_one_goes_on(project, finished, number):
    """Ctrl-C reaches all processes of a run; the end of a cluster job reaches Snakemake first."""
    replace_slides(project, "alone")
    run = start(project)
    wait_for(project, run, "stitch")
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    assert run.wait() != 0
    check_complete(project)
    assert all(path.name.endswith((".zarr.zip", ".json")) for path in left(project))  # journals
    assert "the last run was killed" not in finish(project)
    assert not left(project)
    assert results(project) == results(finished)
