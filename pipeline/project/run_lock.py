"""Two runs of one project exclude each other; one that was killed is in nobody's way.

Snakemake locks a project by files, which a killed run leaves behind. Beside them, every Snakemake that looks at a
project shares a lock that ends with its process. Who can have that lock alone is the only one there, so that the files
are those of a dead run.
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
_LEAST_BYTES = 10**6
_held: list[IO[str]] = []  # open until the process ends, since closing a file gives its lock back


def lock_project() -> bool:
    """Say for the rest of this process that it looks at the project in the current folder.

    Returns
    -------
    bool
        Whether a run was killed, and its lock is removed now. Never for a run on another machine, which may be alive
        where the file system keeps locks to each machine.

    Raises
    ------
    SlidemillError
        If the disk is full: Snakemake would fail over its first file, and not say it as clearly.
    """
    _check_room()
    try:
        _FOLDER.mkdir(exist_ok=True)
        lock = (_FOLDER / "slidemill.lock").open("a+", encoding="utf-8")
        was_killed = _lock(lock)
    except OSError as error:  # no right to write, or a file system without locks; a dry run needs neither
        log.warning("%s: cannot be locked: %s", _FOLDER, why_not_written(_FOLDER / "slidemill.lock", error))
        return False
    _held.append(lock)
    return was_killed


def _check_room() -> None:
    if shutil.disk_usage(".").free < _LEAST_BYTES:
        logging.raiseExceptions = False  # Snakemake cannot write its log either, and would say so at length
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise SlidemillError(f"{_FOLDER}: cannot be written: {why_not_written(_FOLDER.absolute(), error)}")


def _lock(lock: IO[str]) -> bool:
    """Share the lock; say whether it could be had alone before, and a dead run had left one."""
    was_killed = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        was_killed = _unlock(lock)
    except BlockingIOError:
        pass  # somebody is there
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits for one who is alone, and has it for the blink of an eye
    return was_killed


def _unlock(lock: IO[str]) -> bool:
    """Remove Snakemake's locks if they are of this machine; where there are none, note it for the next ones."""
    files = _FOLDER / "locks"
    lock.seek(0)
    if files.is_dir() and any(files.iterdir()):
        if lock.read() != platform.node():
            return False
        shutil.rmtree(files)
        return True
    lock.truncate(0)
    lock.write(platform.node())
    lock.flush()
    return False
