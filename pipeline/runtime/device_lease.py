"""Reserve GPUs by file locks that the operating system releases when the process ends."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_held: list[IO[bytes]] = []  # open until the process ends, since closing a file releases its lock


def lease(names: Sequence[str], count: int = 1) -> list[int]:
    """Reserve ``count`` devices for the rest of this process; wait until as many are free.

    While it waits it holds none, so that two jobs that need several cannot block each other.

    ``names`` are unique names of the devices of this machine, the same in all jobs, at least ``count``. Returned are
    indices into them.
    """
    folder = Path(tempfile.gettempdir()) / f"slidemill-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while True:
        taken = _take(folder, names, count)
        if len(taken) == count:
            if not _held:
                os.register_at_fork(after_in_child=_close_in_child)
            _held.extend(taken.values())
            return list(taken)
        for file in taken.values():
            file.close()
        if not waited:
            log.info("of %d devices, fewer than %d are free; waiting for other jobs", len(names), count)
            waited = True
        time.sleep(_RETRY_S)


def _close_in_child() -> None:
    """Close the locks in a forked worker; if it outlived its parent, it would keep the devices reserved."""
    while _held:
        _held.pop().close()


def _take(folder: Path, names: Sequence[str], count: int) -> dict[int, IO[bytes]]:
    """Lock up to ``count`` of the devices that are free; return their open locks by index."""
    taken: dict[int, IO[bytes]] = {}
    for index, name in enumerate(names):
        if len(taken) == count:
            break
        file = (folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            taken[index] = file
    return taken
