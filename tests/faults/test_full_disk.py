"""A full disk, a quota, a read-only folder: one clear line, no broken file, and the same command completes later.

A finished project is copied to a small disk; the commands of its stages are those in its logs.
"""

import errno
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.__main__ import main
from tests.support.killing import (
    MADE_BY,
    check_complete,
    command,
    finish,
    remove_result,
    replace_slides,
    results,
    start,
)

LARGE = ("train", "predict", "stitch", "report")


class Disk:
    """A small file system that can be filled and made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    @contextmanager
    def full(self, *, free_bytes: int = 0) -> Iterator[None]:
        """Fill the disk, up to ``free_bytes``, within the block."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**16))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            file.truncate(max(0, file.tell() - free_bytes))
        try:
            yield
        finally:
            self._filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")


@pytest.fixture(scope="module")
def disk(finished, tmp_path_factory):
    made = Disk(tmp_path_factory.mktemp("disk"))
    project_bytes = sum(path.stat().st_size + 4096 for path in finished.folder.rglob("*"))
    try:
        made.mount(f"size={project_bytes + 24 * 2**20}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a small disk cannot be mounted here: {error.stderr.strip()}")
    yield made
    subprocess.run(["umount", "--lazy", str(made.folder)], check=True)


@pytest.fixture(scope="module")
def project(disk, finished):
    return finished.copy_to(disk.folder / "project")


@pytest.fixture
def inside(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # libraries hold the standard error of an earlier test


def error_line(capfd, stage):
    """Return the one line that says what went wrong."""
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {stage}: ")
    return line


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("stage", "free"), [*((stage, 0) for stage in MADE_BY), *((stage, 300_000) for stage in LARGE)]
)
def test_a_stage_on_a_full_disk_says_so_and_completes_when_there_is_room(disk, project, capfd, stage, free):
    remove_result(project, stage)
    with disk.full(free_bytes=free):
        done = main(command(project, stage))
    if done:
        line = error_line(capfd, stage)
        assert "cannot be written: No space left on device" in line
        assert "MB are free in" in line
        assert "free some and run again, finished files are kept" in line
    assert done or free  # some need less than that
    check_complete(project)
    assert main(command(project, stage)) == 0
    check_complete(project)
    assert not list(project.folder.rglob(".partial-*"))


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("stage", ["predict", "stitch"])
def test_a_quota_is_told_from_a_full_disk(project, capfd, monkeypatch, stage):
    def refuse(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    remove_result(project, stage)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.base.files.os.fsync", refuse)
        assert main(command(project, stage)) == 1
    assert "Disk quota exceeded; delete files, or ask for a higher quota, and run again" in error_line(capfd, stage)
    assert main(command(project, stage)) == 0


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("stage", ["weigh", *LARGE])
def test_a_folder_that_may_not_be_written_is_one_line(disk, project, capfd, stage):
    with disk.read_only():
        assert main(command(project, stage)) == 1
    line = error_line(capfd, stage)
    assert "cannot be written: Read-only file system; make" in line
    assert "writable and run again" in line
    check_complete(project)


def test_a_run_on_a_full_disk_fails_and_goes_on_when_there_is_room(disk, project, finished, tmp_path):
    """Snakemake itself, the logs and the report have no room either."""
    for free in (0, 2**18):
        replace_slides(project, "alone")
        with disk.full(free_bytes=free):
            run = start(project, log=tmp_path / "run.log")
            assert run.wait() != 0
        assert "No space left on device" in (tmp_path / "run.log").read_text()
        check_complete(project)
    finish(project)
    assert results(project) == results(finished)
