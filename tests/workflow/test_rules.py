"""Each rule is one call of one stage, with flags that the stage understands, and what a cluster needs to know."""

import os
import re
import shlex
from importlib import import_module

import numpy as np
import pytest

from pipeline.__main__ import STAGES, stage_parser
from tests.support.paths import ROOT
from tests.support.workflow import Project

SMALL = {"options": {"width": 2, "depth": 2}, "max_steps": 1}


@pytest.fixture(scope="module")
def planned(tmp_path_factory, python):
    """Everything that a dry run prints for a project that needs all rules."""
    project = Project(tmp_path_factory.mktemp("rules"), python=python)
    for name in "ab":
        for kind in ("training/images", "training/labels", "slides/-it's", "references/-it's"):
            project.drop(f"{kind}/{name}.tif", np.zeros((40, 40), np.uint8))
    project.configure(
        models={"net": SMALL, "folded": SMALL | {"folds": 2}}, ensembles={"both": {"members": ["net", "folded"]}}
    )
    done = project.snakemake("--dry-run", "--printshellcmds", "all", "verification")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_rule_passes_flags_that_its_stage_understands(planned, stage):
    commands = re.findall(rf"python -m pipeline ({stage} .*) > '?logs", planned)
    assert commands
    for command in commands:
        stage_parser(stage, import_module(STAGES[stage]).run).parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_says_what_it_needs_and_only_the_network_asks_for_a_gpu(planned, stage):
    rule = "train_network" if stage == "train" else stage
    jobs = re.findall(rf"^(?:local)?rule {rule}:\n(.*?)\n\n", planned, re.MULTILINE | re.DOTALL)
    assert jobs
    for job in jobs:
        assert re.search(r"^ +log: ", job, re.MULTILINE)
        assert stage == "finish" or re.search(r"^ +benchmark: ", job, re.MULTILINE)
        assert ("gpu=1" in job) == (stage in {"train", "validate", "predict"})
        assert stage == "finish" or re.search(r"mem_mb=\d", job)
        assert stage == "finish" or re.search(r"runtime=\d", job)


def test_parsing_loads_no_torch(project, micrograph, tmp_path, monkeypatch):
    """A dry run works where these packages cannot be imported."""
    project.drop("slides/a.tif", micrograph)
    for package in ("torch", "monai", "lightning", "skimage", "scipy", "zarr", "dask", "tifffile"):
        (tmp_path / f"{package}.py").write_text(f"raise RuntimeError('{package} was imported')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    done = project.snakemake("--dry-run")
    assert done.returncode == 0, done.stderr
