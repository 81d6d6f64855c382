"""Tiles and strips whose compressed data are damaged: most decoders fill in what is not there, without an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import simplejpeg
import tifffile
from tifffile import COMPRESSION

from pipeline.slides.formats.compression.stored import JPEG2000, stored_bytes

_END = b"\xff\xd9"  # of JPEG (ITU-T T.81, B.1.1.3) and JPEG 2000 (ISO/IEC 15444-1, A.4.4)
_WEBP = {COMPRESSION.WEBP, COMPRESSION.WEBP_DEPRECATED}
_OUTPUT = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}  # of the others: RGB


def count_damaged(page: Any) -> int:
    """Return how many of the tiles or strips of a TIFF page are not what their compression says.

    JPEG is decoded, about 100 Mpx a second and thread; of JPEG 2000 and WebP, only the end is looked at.
    """
    is_damaged = _check(page)
    if not is_damaged:
        return 0
    pieces = [piece for piece in zip(page.dataoffsets, page.databytecounts, strict=False) if piece[1]]
    threads = tifffile.TIFF.MAXWORKERS
    with stored_bytes(page) as files, ThreadPoolExecutor(threads) as pool:

        def count(pieces: list[tuple[int, int]]) -> int:
            return sum(is_damaged(files.read(page.parent.filehandle, *piece)) for piece in pieces)

        return sum(pool.map(count, (pieces[first::threads] for first in range(threads))))


def is_jpeg_damaged(data: bytes, most_px: int) -> bool:
    """Return whether a decoder of JPEG doubts the data: bytes too many, too few, or that mean nothing.

    What it cannot decode at all (12 bits, lossless), or has more pixels than expected, is not judged: reading it is an
    error, or the task of another decoder.
    """
    try:
        rows, columns, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except ValueError:
        return False
    if rows * columns > most_px:
        return False
    try:
        simplejpeg.decode_jpeg(data, colorspace=_OUTPUT.get(colours, "RGB"), strict=True)
    except ValueError:
        return True
    return False


def _check(page: Any) -> Callable[[bytes], bool] | None:
    """Return what tells whether the data of a tile or strip of the page are damaged; None if nothing does."""
    if page.compression == COMPRESSION.JPEG:
        tables = (page.jpegtables or b"").removesuffix(_END)
        most_px = 4 * math.prod(page.chunks[:2])

        def is_damaged(data: bytes) -> bool:
            picture = tables + data[2:] if tables else data  # with one start of an image
            return not _ends(data) or is_jpeg_damaged(picture, most_px)

        return is_damaged
    if page.compression in JPEG2000:
        return lambda data: not _ends(data)
    if page.compression in _WEBP:  # a RIFF file, which begins with its length
        return lambda data: data[:4] != b"RIFF" or int.from_bytes(data[4:8], "little") + 8 > len(data)
    return None


def _ends(data: bytes) -> bool:
    return data.rstrip(b"\0").endswith(_END)  # some writers add zeros
