"""A small project with a network that needs no training, and a Python that starts at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.networks import write_network
from tests.support.warm import warm_python
from tests.support.workflow import Project


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> Iterator[str]:
    """The Python whose libraries are loaded."""
    with warm_python(tmp_path_factory.mktemp("warm")) as path:
        yield path


@pytest.fixture(scope="module")
def project(tmp_path_factory, python) -> Project:
    """A project without slides, with an untrained network as its checkpoint."""
    made = Project(tmp_path_factory.mktemp("project"), python=python)
    write_network(made.folder / "network", width=2, depth=2)
    made.configure()
    return made


@pytest.fixture(scope="session")
def micrograph() -> np.ndarray:
    """Something like a slide: (70, 90) uint8."""
    return np.random.default_rng(1).integers(0, 255, (70, 90)).astype(np.uint8)
