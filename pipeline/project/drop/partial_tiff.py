"""Whether a TIFF is still being copied: it ends before data that its own directories point to.

Only directories are read, without any library, since this runs whenever the workflow is parsed. A file that is no TIFF,
or a damaged one, is not partial; the stage that reads it reports the error. TIFF 6.0 (Adobe, 1992); BigTIFF.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # by the number of the type
_INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of integers: SHORT, LONG, IFD, LONG8, IFD8
_STARTS, _LENGTHS, _SUB_IFDS = (273, 324), (279, 325), 330  # of strips and tiles
_MOST_IFDS = 4096
_LARGEST_CLASSIC = 2**32  # bytes
_LONGEST_LIST = 2**24  # bytes
_MOST_BYTES = 2**25  # of entries and lists; a hostile file would keep the process busy that plans a run


@dataclass(frozen=True)
class _Layout:
    order: str
    count: str
    word: str

    @property
    def entry(self) -> str:
        return f"{self.order}HH{self.word}{struct.calcsize('=' + self.word)}s"


_LAYOUTS = {
    b"II*\0": (4, _Layout("<", "H", "I")),
    b"MM\0*": (4, _Layout(">", "H", "I")),
    b"II+\0": (8, _Layout("<", "Q", "Q")),
    b"MM\0+": (8, _Layout(">", "Q", "Q")),
}


def is_partial(path: Path) -> bool:
    """Return whether a TIFF ends before the last of its directories, strips and tiles.

    False for a larger file than a classic TIFF can address: that of a scanner (NDPI) with offsets of its own.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return any(end > size for end in _ends(file, size))
        except struct.error:  # it became shorter just now
            return True


def _ends(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield the end of everything the file points to, before reading it."""
    known = _LAYOUTS.get(file.read(4))
    if known is None:
        return
    place, layout = known
    if layout.word == "I" and size >= _LARGEST_CLASSIC:
        return
    yield place + struct.calcsize("=" + layout.word)
    pending, seen, left = [_read(file, place, layout.order + layout.word)[0]], set[int](), _MOST_BYTES
    while pending and len(seen) < _MOST_IFDS and left > 0:
        start = pending.pop()
        if start == 0 or start in seen:
            continue
        seen.add(start)
        entries = start + struct.calcsize("=" + layout.count)
        yield entries
        (count,) = _read(file, start, layout.order + layout.count)
        after = entries + count * struct.calcsize(layout.entry)
        yield after + struct.calcsize("=" + layout.word)
        lists: dict[int, tuple[int, ...]] = {}
        for number in range(min(count, _MOST_IFDS)):
            yield from _entry(file, entries + number * struct.calcsize(layout.entry), layout, lists)
        for starts, lengths in zip(_STARTS, _LENGTHS, strict=True):
            yield from map(sum, zip(lists.get(starts, ()), lists.get(lengths, ()), strict=False))
        left -= after - start + sum(8 * len(values) for values in lists.values())
        pending += [*lists.get(_SUB_IFDS, ()), *_read(file, after, layout.order + layout.word)]


def _entry(file: BinaryIO, place: int, layout: _Layout, lists: dict[int, tuple[int, ...]]) -> Iterator[int]:
    """Yield where the values of one entry end; add positions of pixels and directories to ``lists``."""
    tag, kind, count, inline = _read(file, place, layout.entry)
    length = count * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
    values = place + struct.calcsize(layout.entry) - len(inline)
    if length > len(inline):
        (values,) = struct.unpack(layout.order + layout.word, inline)
        yield values + length
    is_read = tag in (*_STARTS, *_LENGTHS, _SUB_IFDS) and tag not in lists
    if is_read and kind in _INTEGERS and length <= _LONGEST_LIST:
        lists[tag] = _read(file, values, f"{layout.order}{count}{_INTEGERS[kind]}")


def _read(file: BinaryIO, place: int, form: str) -> tuple[Any, ...]:
    file.seek(place)
    return struct.unpack(form, file.read(struct.calcsize(form)))
