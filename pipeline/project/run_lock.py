"""Lock a project against concurrent runs; clean up after killed ones.

Snakemake locks a project by files, which a killed run leaves behind. In addition, every Snakemake process of a project
shares a file lock that the system releases when it ends. If a process gets that lock exclusively, no other one is
running, and Snakemake's files are left from a killed run.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import shutil
from pathlib import Path
from typing import IO

from pipeline.base.errors import SlidemillError
from pipeline.base.files import why_not_written

log = logging.getLogger(__name__)

_FOLDER = Path(".snakemake")
_LOCKS = _FOLDER / "locks"  # of Snakemake
_LEAST_BYTES = 10**6
_held: list[IO[str]] = []  # open until the process ends, since closing a file releases its lock


def lock_project(*, begins: bool = False) -> bool:
    """Lock the project in the current folder, shared, until this process ends.

    Parameters
    ----------
    begins : bool
        Whether a run begins, which is refused while another one works. A dry run is not.

    Returns
    -------
    bool
        Whether a run was killed and its lock has been removed. Never for a run on another machine: on some file systems
        locks are local to a machine, so it may still be running.

    Raises
    ------
    SlidemillError
        If the disk is full, or another run works. Snakemake would fail with a less clear message.
    """
    _check_free_space()
    try:
        _FOLDER.mkdir(exist_ok=True)
        lock = (_FOLDER / "slidemill.lock").open("a+", encoding="utf-8")
        was_killed = _lock(lock, begins=begins)
    except OSError as error:  # read-only, or a file system without locks; a dry run needs neither
        log.warning("%s: cannot be locked: %s", _FOLDER, why_not_written(_FOLDER / "slidemill.lock", error))
        return False
    _held.append(lock)
    return was_killed


def _check_free_space() -> None:
    if shutil.disk_usage(".").free < _LEAST_BYTES:
        logging.raiseExceptions = False  # Snakemake cannot write its log either, with a traceback each time
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise SlidemillError(f"{_FOLDER}: cannot be written: {why_not_written(_FOLDER.absolute(), error)}")


def _lock(lock: IO[str], *, begins: bool) -> bool:
    """Share the lock; return whether a killed run had left Snakemake's lock, which is then removed."""
    was_killed = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        was_killed = _unlock(lock)
    except BlockingIOError:  # another process is running
        if begins and _has_locks():
            raise SlidemillError(f"another run is working in {Path.cwd()}: wait until it has ended") from None
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits for a process with the exclusive lock, which it has for milliseconds
    return was_killed


def _has_locks() -> bool:
    return _LOCKS.is_dir() and any(_LOCKS.iterdir())


def _unlock(lock: IO[str]) -> bool:
    """Remove Snakemake's locks if this machine made them; if there are none, note this machine for later runs."""
    lock.seek(0)
    if _has_locks():
        if lock.read() != platform.node():
            return False
        shutil.rmtree(_LOCKS)
        return True
    lock.truncate(0)
    lock.write(platform.node())
    lock.flush()
    return False
