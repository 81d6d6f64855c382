"""One job per device: who holds the lock of a device has it, and the end of a process, however it ends, frees it."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.5
_held: list[IO[bytes]] = []  # open until the process ends, since closing a file gives its lock back


def lease(names: Sequence[str]) -> int:
    """Take one of the devices for the rest of this process; wait until one is free.

    Parameters
    ----------
    names : sequence of str
        What tells the devices of this machine apart, the same for all jobs.

    Returns
    -------
    int
        Index into ``names``.
    """
    folder = Path(tempfile.gettempdir()) / f"slidemill-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while True:
        for index, name in enumerate(names):
            file = (folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
            else:
                _held.append(file)
                return index
        if not waited:
            log.info("all %d devices are in use by other jobs; waiting for one", len(names))
            waited = True
        time.sleep(_LOOK_AGAIN_S)
