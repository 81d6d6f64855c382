"""The size that a compressed picture states itself: a JPEG or JPEG 2000 in a small tile can decode to gigabytes."""

from __future__ import annotations

import struct
from typing import Any

from pipeline.slides.formats.image import check_budget

_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers (ITU T.81, table B.1) followed by a size
_MOST_CHANNELS = 4


def check_tiles(page: Any, budget_bytes: int) -> None:
    """Let a page of tifffile refuse, before it decodes one, tiles whose picture is larger than the budget."""
    decode = page.decode

    def decode_checked(data: bytes | None, *more: Any, **options: Any) -> Any:
        rows, columns = stated_size(data or b"")
        check_budget("the picture in a tile", rows * columns * _MOST_CHANNELS, budget_bytes)
        return decode(data, *more, **options)

    page.decode = decode_checked


def stated_size(data: bytes) -> tuple[int, int]:
    """Return (rows, columns) of a JPEG or a JPEG 2000 code stream; (0, 0) for anything else, or a damaged header."""
    try:
        if data[:4] == b"\xff\x4f\xff\x51":
            columns, rows = struct.unpack_from(">II", data, 8)
            return rows, columns
        place = 2 if data[:2] == b"\xff\xd8" else len(data)
        while data[place] == 0xFF:
            marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
            if marker in _SIZES:
                rows, columns = struct.unpack_from(">HH", data, place + 5)
                return rows, columns
            place += 2 + length
    except (IndexError, struct.error):
        pass
    return 0, 0
