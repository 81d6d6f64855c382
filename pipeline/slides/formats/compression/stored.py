"""The bytes of a TIFF file as they are stored, for several threads at once, and codes that say how they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import tifffile
from tifffile import COMPRESSION

JPEG2000 = {
    COMPRESSION.JPEG2000,
    COMPRESSION.JPEG_2000_LOSSY,
    COMPRESSION.APERIO_JP2000_RGB,
    COMPRESSION.APERIO_JP2000_YCBC,
}


def lock_of(page: Any) -> RLock:
    """Return what a thread has to hold while it reads from the page's file, or from other files of its set.

    The threads share the place in a file, so that one has to wait for another. By default, the lock of a file does
    nothing.
    """
    file = page.parent.root.filehandle
    file.set_lock(True)
    lock: RLock = file.lock
    return lock


@contextmanager
def stored_bytes(page: Any) -> Iterator[tifffile.FileCache]:
    """Give a reader of bytes of the page's file, and of other files of its set, which are open until then."""
    files = tifffile.FileCache(lock=lock_of(page))
    try:
        yield files
    finally:
        files.clear()
