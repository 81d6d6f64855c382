"""A job that is asked to end says so in one line and clears its temporary files; nobody has to mend anything."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.killing import check_complete, command, end_of, forget, replace_slides, results, start, wait_for
from tests.support.paths import ROOT
from tests.support.workflow import Project


@pytest.fixture(scope="module")
def project(undisturbed, tmp_path_factory):
    """A finished project."""
    made = Project(tmp_path_factory.mktemp("cancelled") / "project")
    shutil.copytree(undisturbed.folder, made.folder)
    return made


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
    """The folders with temporary files; a lock alone is none."""
    walked = os.walk(project.folder / "results")
    return [Path(folder) for folder, _, files in walked if ".partial-" in folder and set(files) - {".lock"}]


def cancel(project, stage, number):
    """Cancel a job while it writes, and return what it said; begin again where it was done before it heard."""
    for _ in range(5):
        forget(project, stage)
        with begin(project, stage) as job:
            while job.poll() is None and not left(project):
                time.sleep(0.005)
            job.send_signal(number)
            log = job.communicate()[1]
        if "stopped by" in log:
            assert job.returncode == 1, log
            return log
    raise AssertionError(f"{stage} was always done before it was cancelled")


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
def test_a_cancelled_stage_says_so_and_clears_its_files(project, stage, number):
    log = cancel(project, stage, number)
    assert f"\nerror: {stage}: stopped by {number.name}, as a cancelled job is" in log
    assert "run the same command again [Stopped]\n" in log
    assert "Traceback" not in log
    journals = ".zarr.zip" if stage == "predict" else "none"
    assert all(path.name.endswith(journals) for path in left(project))
    check_complete(project)
    with begin(project, stage) as job:
        assert job.wait() == 0
    assert not left(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_ends_in_order_and_the_next_one_goes_on(project, undisturbed, number):
    """Ctrl-C reaches all processes of a run; what ends a job of a cluster, Snakemake first."""
    replace_slides(project, "alone")
    run = start(project)
    wait_for(project, run, "stitch")
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    assert run.wait() != 0
    check_complete(project)
    assert all(path.name.endswith(".zarr.zip") for path in left(project))  # journals
    again = start(project)
    assert again.wait() == 0, end_of(project)
    assert "the last run was killed" not in end_of(project)
    assert not left(project)
    assert results(project) == results(undisturbed)
