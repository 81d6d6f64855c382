"""Whatever is killed, whenever: the same command goes on, and ends with the masks and metrics of an undisturbed run."""

import os
import shutil
import signal
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tests.support.killing import (
    SAMPLES,
    check_complete,
    end_of,
    forget,
    kill,
    make_project,
    processes,
    replace_slides,
    results,
    stages,
    start,
    wait_for,
)
from tests.support.workflow import Project

QUOTA = {"train": 6, "predict": 6, "stitch": 4, "report": 4}


@pytest.fixture(scope="module")
def expected(undisturbed):
    return results(undisturbed)


@pytest.fixture(scope="module")
def longest_s(undisturbed):
    """How long each stage took."""
    folder = undisturbed.folder / "benchmarks"
    tables = {stage: [*folder.glob(f"{stage}.tsv"), *folder.glob(f"{stage}/**/*.tsv")] for stage in QUOTA}
    return {stage: max(pd.read_csv(path, sep="\t")["s"].max() for path in paths) for stage, paths in tables.items()}


@pytest.fixture(scope="module")
def project(undisturbed, tmp_path_factory):
    """A finished project."""
    made = Project(tmp_path_factory.mktemp("killed") / "project")
    shutil.copytree(undisturbed.folder, made.folder)
    return made


def kill_once(project, generator, left, longest_s):
    """Run until a stage that is still wanted is at work, and kill everything at a random moment of it.

    Returns the stages that were hit. Where the run ends before that, its slides are replaced by themselves, and a
    network that is still to be killed in training is forgotten.
    """
    run = start(project)
    while run.poll() is None:
        if wanted := [stage for stage in stages(run) if left[stage] > 0]:
            time.sleep(generator.uniform(0, longest_s[wanted[0]]))
            hit = stages(run)
            kill(run)
            return hit
        time.sleep(0.02)
    assert run.returncode == 0, end_of(project)
    replace_slides(project, *SAMPLES)
    if left["train"]:
        forget(project, "train")
    return set()


def test_twenty_kills_at_random_moments_leave_no_trace(tmp_path, expected, longest_s):
    project = make_project(tmp_path)
    generator, left, killed, went_on = np.random.default_rng(20261126), Counter(QUOTA), 0, False
    while left.total() > 0:
        if hit := kill_once(project, generator, left, longest_s):
            killed += 1
            check_complete(project)
            left -= Counter({stage: 1 for stage in hit if left[stage]})
        went_on = went_on or "going on after step" in (project.folder / "logs" / "train" / "net.log").read_text()
        if not went_on:  # no kill has come after a validation yet
            left["train"] = max(left["train"], 1)
    assert killed >= 20
    run = start(project)
    assert run.wait() == 0, end_of(project)
    assert results(project) == expected
    assert not list((project.folder / "results").rglob(".partial-*"))


def test_a_job_that_outlives_its_killed_run_does_not_get_in_the_way_of_the_next_one(project, expected):
    replace_slides(project, "alone")
    run = start(project)
    wait_for(project, run, "predict")
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert "predict" in stages(run)
    again = start(project)
    assert again.wait() == 0, end_of(project)
    assert "the last run was killed; its lock is removed" in end_of(project)
    assert results(project) == expected
    while processes(run):
        time.sleep(0.1)
    check_complete(project)


def test_a_killed_job_is_a_row_that_says_so_with_its_log_and_what_to_do(project, expected):
    """As by the kernel, where memory ends."""
    replace_slides(project, "alone")
    run = start(project)
    wait_for(project, run, "predict")
    log = max(project.folder.glob("logs/predict/net/alone/*.log"), key=lambda path: path.stat().st_mtime_ns)
    while not log.read_text():
        time.sleep(0.02)
    for process, words in processes(run).items():
        if words[1:4] == ["-m", "pipeline", "predict"]:
            os.kill(process, signal.SIGKILL)
    assert run.wait() != 0
    row = project.metrics().loc["alone"]
    assert (row["status"], row["stage"]) == ("failed", "predict")
    assert project.folder / row["log"] == log
    assert "it was killed" in row["error"]
    assert f"failed: alone at predict: {row['error']} ({row['log']})" in end_of(project)
    assert "python -m pipeline predict --weights" in log.read_text()
    again = start(project)
    assert again.wait() == 0, end_of(project)
    assert results(project) == expected


def test_two_runs_that_are_alive_exclude_each_other(project, expected, tmp_path):
    replace_slides(project, "alone")
    first = start(project)
    wait_for(project, first, "tile")
    second = start(project, log=tmp_path / "second.log")
    assert second.wait() != 0
    assert "locked" in (tmp_path / "second.log").read_text()
    assert first.wait() == 0, end_of(project)
    assert results(project) == expected
