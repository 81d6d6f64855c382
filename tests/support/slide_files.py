"""Good and broken files of a drop folder."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

# Before a command: root may read everything; without these two rights it may read what the mode of a file allows.
WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def touch(folder: Path, *names: str) -> None:
    """Make empty files, with the folders that they are in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def header_of(rows: int, columns: int, *, samples: int = 1) -> bytes:
    """A small TIFF whose header claims an image of ``rows`` x ``columns`` in one compressed strip."""
    tags = [(256, 4, columns), (257, 4, rows), (258, 3, 8), (259, 3, 8), (262, 3, 2 if samples == 3 else 1)]
    tags += [(273, 4, 8), (277, 3, samples), (278, 4, rows), (279, 4, 16)]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 24) + zlib.compress(b"x" * 99)[:16].ljust(16, b"\0") + directory + bytes(4)
