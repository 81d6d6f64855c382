"""A copy of the finished project to kill runs of, and what an undisturbed run made."""

import pytest

from tests.support.killing import results


@pytest.fixture(scope="module")
def expected(finished):
    return results(finished)


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    return finished.copy_to(tmp_path_factory.mktemp("killed") / "project")
