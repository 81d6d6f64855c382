"""Files as they lie in a drop folder, whole and broken."""

from __future__ import annotations

import os
from pathlib import Path

# Before a command: root may read everything; without these two rights it may read what the mode of a file allows.
WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def touch(folder: Path, *names: str) -> None:
    """Make empty files, with the folders that they are in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
