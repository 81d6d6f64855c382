"""After any kill the same command goes on, and ends with the network, masks and metrics of an undisturbed run."""

import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from pipeline.base import paths
from pipeline.training.state import STATE
from tests.support.killing import (
    check_complete,
    finish,
    kill,
    messages,
    remove_result,
    replace_slides,
    results,
    stages,
    start,
)

QUOTA = {"train": 5, "predict": 5, "stitch": 5, "report": 5}  # kills while a stage runs


@pytest.fixture(scope="module")
def longest_s(finished):
    """How long each stage took."""
    folder = finished.folder / "benchmarks"
    tables = {stage: [*folder.glob(f"{stage}.tsv"), *folder.glob(f"{stage}/**/*.tsv")] for stage in QUOTA}
    return {stage: max(pd.read_csv(path, sep="\t")["s"].max() for path in paths) for stage, paths in tables.items()}


def kill_once(project, generator, left, longest_s):
    """Run until a stage with kills left is running, wait a random time, and kill everything.

    The more kills are left, the shorter it waits, so that they spread over one run of the stage, which goes on. Returns
    the stages that were hit. A run that ends before that is given new work: slides, and the training if it has
    kills left.
    """
    run = start(project)
    while run.poll() is None:
        if wanted := [stage for stage in stages(run) if left[stage] > 0]:
            time.sleep(generator.uniform(0, longest_s[wanted[0]] / left[wanted[0]]))
            hit = stages(run)
            kill(run)
            return hit
        time.sleep(0.02)
    assert run.returncode == 0, messages(project)
    replace_slides(project, "alone", "plate/b")
    if left["train"]:
        remove_result(project, "train")
    return set()


def kill_after_a_validation(project):
    """Kill a training that can be continued: few of the random moments come after its first validation."""
    remove_result(project, "train")
    run, state = start(project), project.folder / paths.TRAINING.format(model="net") / STATE
    while not state.exists():
        assert run.poll() is None, messages(project)
        time.sleep(0.002)
    kill(run)


def test_twenty_kills_at_random_moments_leave_no_trace(project, expected, longest_s):
    kill_after_a_validation(project)
    generator, left, killed = np.random.default_rng(20261126), Counter(QUOTA), 0
    resumed = False
    while left.total() > 0:
        if hit := kill_once(project, generator, left, longest_s):
            killed += 1
            check_complete(project)
            left -= Counter({stage: 1 for stage in hit if left[stage]})
        resumed = resumed or "continuing after step" in (project.folder / "logs" / "train" / "net.log").read_text()
    assert killed >= 20
    assert resumed
    finish(project)
    assert results(project) == expected
    assert not list((project.folder / "results").rglob(".partial-*"))
