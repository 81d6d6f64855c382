"""Each rule is one call of one stage with all of its flags, and writes to the paths of the project."""

import inspect
import os
import re
from importlib import import_module

import pytest

from pipeline.__main__ import STAGES
from tests.support.paths import ROOT

RULES = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))


def body_of(rule):
    return re.search(rf"^rule {rule}:\n(.*?)(?=^rule |\Z)", RULES, flags=re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_rule_passes_every_parameter_of_its_stage(stage):
    body = body_of(stage)
    assert f'"python -m pipeline {stage} ' in body.split("shell:")[1]
    flags = set(re.findall(r"--([a-z-]+)", body))
    run = import_module(STAGES[stage]).run
    assert flags == {name.replace("_", "-") for name in inspect.signature(run).parameters}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("directive", ["log", "benchmark", "conda", "resources", "params"])
def test_a_rule_has_what_a_cluster_needs(stage, directive):
    assert re.search(rf"^    {directive}:", body_of(stage), flags=re.MULTILINE)
    assert "mem_mb=" in body_of(stage)
    assert "runtime=" in body_of(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_network_asks_for_a_gpu(stage):
    assert ("gpu=1" in body_of(stage)) == (stage in {"train", "validate", "predict"})


def test_parsing_loads_no_torch(project, micrograph, tmp_path, monkeypatch):
    """A dry run works where these packages cannot be imported."""
    project.drop("slides/a.tif", micrograph)
    for package in ("torch", "monai", "lightning", "skimage", "scipy", "zarr", "dask", "tifffile"):
        (tmp_path / f"{package}.py").write_text(f"raise RuntimeError('{package} was imported')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    done = project.snakemake("--dry-run")
    assert done.returncode == 0, done.stderr
