"""What all tests share: the real micrographs, a finished project, signals, threads, and which folders are slow."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from tests.support.paths import DATA
from tests.support.workflow import Project, make_project

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests send it to their children
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as behind nohup
    signal.signal(signal.SIGHUP, lambda *_: None)  # children do not ignore it then
settings.register_profile("slidemill", deadline=None, print_blob=True)
settings.load_profile("slidemill")
# Several tests run at a time, each in one thread; idle threads leave it to others, also in the jobs that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# Files that take minutes
LONGEST = ("test_kills", "test_incremental", "test_killed_jobs", "test_failures", "test_comparison")
SLOW = ("browser", "faults", "workflow")  # folders; single tests and files elsewhere have the marker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow folders; run slow files first, so that parallel workers end at about the same time."""
    for item in items:
        if item.path.parent.name in SLOW:
            item.add_marker("slow")
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(
        key=lambda item: (
            item.path not in slow_files,
            LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST),
        )
    )


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real micrographs."""
    if not DATA.is_dir():
        pytest.skip(f"no real micrographs at {DATA}; set SLIDEMILL_DATA")
    return DATA


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first run, made once for all workers of pytest-xdist; copy it before you change it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "finished").exists():
            made = make_project(shared / "unfinished")
            made.run("--cores", "1")  # as interrupted runs: threads decide about the last bits of a network
            made.folder.rename(shared / "finished")
    return Project(shared / "finished")


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20150518)
