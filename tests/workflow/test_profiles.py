"""The profile for SLURM has the settings of the default one, and asks for GPUs for the network alone."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from tests.support.paths import ROOT

PROFILES = ROOT / "profiles"
TEXT = (PROFILES / "slurm" / "config.yaml").read_text(encoding="utf-8")
WAYS = re.findall(r"^ +#? *(\w[^#\n]*?) +# (--g\S+)", TEXT, re.MULTILINE)
SLURM, DEFAULT = (yaml.safe_load((PROFILES / name / "config.yaml").read_text()) for name in ("slurm", "default"))


class Resources(SimpleNamespace):
    """Resources of a job, with the method that the plugin reads them by."""

    def get(self, name, default=None):
        return getattr(self, name, default)


def test_it_has_all_of_the_default_profile_but_the_one_gpu():
    assert {name: SLURM[name] for name in DEFAULT if name != "resources"} == {
        name: value for name, value in DEFAULT.items() if name != "resources"
    }
    assert "resources" not in SLURM


@pytest.mark.parametrize(("resources", "option"), WAYS)
def test_what_the_comments_say_is_what_slurm_is_asked_for(resources, option):
    asked = yaml.safe_load("{" + resources + "}")
    job = SimpleNamespace(resources=Resources(**({"gpu": 1} | asked)))
    validate_slurm_extra(job)
    assert f"{set_gres_string(job)} {asked.get('slurm_extra', '')}".split() == [option]


def test_every_way_to_ask_for_a_gpu_is_shown():
    assert [option.partition("=")[0] for _, option in WAYS] == [
        "--gpus",
        "--gpus",
        "--gres",
        "--gres",
        "--gpus-per-task",
    ]


def test_resources_of_the_network_are_asked_for_by_its_stages_alone(project):
    """Only `train`, `validate` and `predict` need a GPU."""
    project.drop("slides/a.tif", np.zeros((40, 40), np.uint8))
    done = project.snakemake("--dry-run", "--workflow-profile", "slurm")
    assert done.returncode == 0, done.stderr
    asked = re.findall(r"^ *rule (\w+):.*?\n *resources: (.*?)$", done.stdout + done.stderr, re.MULTILINE | re.DOTALL)
    assert {rule for rule, _ in asked} >= {"tile", "predict", "stitch", "objects", "report"}
    assert {rule for rule, resources in asked if "gpu=1" in resources} == {"predict"}
    for rule, resources in asked:
        assert rule in ("all", "finish") or re.search(r"mem_mb=\d.*runtime=\d", resources), rule
