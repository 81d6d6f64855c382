"""What the tests of interrupted work compare with: a project whose run nothing disturbed."""

from __future__ import annotations

import pytest

from tests.support.killing import end_of, make_project, start
from tests.support.workflow import Project


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, finished; copy it before anything is done to it."""
    made = make_project(tmp_path_factory.mktemp("undisturbed"))
    run = start(made)
    assert run.wait() == 0, end_of(made)
    return made
