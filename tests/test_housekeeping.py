"""What is written twice on purpose says the same."""

import re
import subprocess
import sys
import tomllib

import yaml

from pipeline.settings.schema import parse_settings
from tests.support.paths import ROOT

CONDA_NAMES = {"torch": "pytorch", "openslide-bin": "openslide"}


def test_the_conda_environment_has_the_ranges_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"python": project["requires-python"], "pip": ""}
    for requirement in project["dependencies"]:
        name, version = re.fullmatch(r"([A-Za-z0-9_-]+)(.*)", requirement).groups()
        wanted[CONDA_NAMES.get(name, name)] = version
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pinned = dict((*requirement.split(" ", 1), "")[:2] for requirement in environment["dependencies"])
    assert pinned == wanted


def test_the_documentation_of_the_configuration_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "config" / "document.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_configuration_that_is_shipped_is_valid():
    paths = [ROOT / "config" / "config.yaml", *(ROOT / "config" / "examples").glob("*.yaml")]
    assert len(paths) >= 4
    for path in paths:
        parse_settings(yaml.safe_load(path.read_text()), source=str(path))


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
