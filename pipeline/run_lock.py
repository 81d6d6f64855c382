"""Two runs of one project exclude each other; one that was killed is in nobody's way.

Snakemake locks a project by files, which a killed run leaves behind. Beside them, every Snakemake that looks at a
project shares a lock that ends with its process. Who can have that lock alone is the only one there, so that the files
are those of a dead run.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
from pathlib import Path
from typing import IO

_FOLDER = Path(".snakemake")
_held: list[IO[str]] = []  # open until the process ends, since closing a file gives its lock back


def enter_project() -> bool:
    """Say for the rest of this process that it looks at the project in the current folder.

    Returns
    -------
    bool
        Whether a run was killed, and its lock is removed now. Never for a run on another machine, which may be alive
        where the file system keeps locks to each machine.
    """
    try:
        _FOLDER.mkdir(exist_ok=True)
        lock = (_FOLDER / "slidemill.lock").open("a+", encoding="utf-8")
    except OSError:  # not writable: no run can begin, and Snakemake says so
        return False
    was_killed = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        was_killed = _unlock(lock)
    except BlockingIOError:
        pass  # somebody is there
    except OSError:  # a file system without locks
        return False
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits for one who is alone, and has it for the blink of an eye
    _held.append(lock)
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
