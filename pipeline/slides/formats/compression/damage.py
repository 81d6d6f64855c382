"""Tiles and strips whose compressed data are cut off: decoders fill in what is not there, without an error."""

from __future__ import annotations

from typing import Any

from tifffile import COMPRESSION

_END = b"\xff\xd9"  # of JPEG (ITU-T T.81, B.1.1.3) and JPEG 2000 (ISO/IEC 15444-1, A.4.4)
_WITH_END = {
    COMPRESSION.JPEG,
    COMPRESSION.JPEG2000,
    COMPRESSION.JPEG_2000_LOSSY,
    COMPRESSION.APERIO_JP2000_RGB,
    COMPRESSION.APERIO_JP2000_YCBC,
}
_WITH_LENGTH = {COMPRESSION.WEBP, COMPRESSION.WEBP_DEPRECATED}  # a RIFF file, which begins with its length
_TAIL_BYTES, _HEAD_BYTES = 64, 8  # some writers add zeros at the end


def count_damaged(page: Any) -> int:
    """Return how many of the tiles or strips of a TIFF page do not end as their compression says."""
    if page.compression not in _WITH_END | _WITH_LENGTH:
        return 0
    file = page.parent.filehandle
    damaged = 0
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        if length and page.compression in _WITH_LENGTH:
            head = _read(file, start, min(length, _HEAD_BYTES))
            damaged += head[:4] != b"RIFF" or int.from_bytes(head[4:8], "little") + 8 > length
        elif length:
            tail = min(length, _TAIL_BYTES)
            damaged += not _read(file, start + length - tail, tail).rstrip(b"\0").endswith(_END)
    return damaged


def _read(file: Any, start: int, length: int) -> bytes:
    with file.lock:
        file.seek(start)
        content: bytes = file.read(length)
    return content
