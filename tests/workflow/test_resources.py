"""Jobs may use the memory of this machine, or on a cluster what they ask for."""

import re
from dataclasses import replace

import numpy as np
import pytest

IN_2097_MB = ("env", "SLURM_MEM_PER_NODE=2000")  # limit of the process that plans


@pytest.fixture(scope="module")
def crowded(project):
    """A project with a folder whose name Snakemake cannot pass to jobs of a cluster."""
    project.drop("slides/a.tif", np.zeros((40, 40), np.uint8))
    project.drop("slides/a, b/c.tif", np.zeros((40, 40), np.uint8))
    return replace(project, prefix=IN_2097_MB)


def commands(done):
    assert done.returncode == 0, done.stderr
    return re.findall(r"python -m pipeline .*", done.stdout + done.stderr)


def test_the_budget_is_lowered_to_what_this_machine_has(crowded):
    planned = commands(crowded.snakemake("--dry-run", "--printshellcmds"))
    assert {budget for line in planned for budget in re.findall(r"--memory-mb (\d+)", line)} == {"1887"}
    assert sum("--batch='a, b/0001'" in line for line in planned) == 4  # tile, predict, stitch, objects


def test_jobs_of_a_cluster_keep_theirs_and_odd_names_stay_here(crowded):
    done = crowded.snakemake("--dry-run", "--printshellcmds", "--workflow-profile", "slurm")
    planned = commands(done)
    assert {budget for line in planned for budget in re.findall(r"--memory-mb (\d+)", line)} == {"4000"}
    assert not [line for line in planned if "a, b" in line]
    assert "a, b/c.tif: a folder whose name has a comma" in done.stdout + done.stderr
