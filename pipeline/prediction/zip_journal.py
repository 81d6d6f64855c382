"""Recovery of a zip file whose writing was interrupted.

Entries are only added at the end, each with a name, length and checksum before it. Some entries are marks: everything
before the last mark is consistent. A killed process leaves no table of contents, and perhaps half an entry.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

_HEADER = struct.Struct("<4s5H3L2H")  # PKWARE APPNOTE, 4.3.7: local file header
_SIGNATURE = b"PK\3\4"


def recover(path: Path, is_mark: Callable[[str], bool]) -> list[str]:
    """Cut off a zip after its last mark and write its table of contents; return the names of its entries.

    A file without a mark is not changed, and no name is returned.

    Parameters
    ----------
    path : Path
        A complete or damaged zip, uncompressed, with names in ASCII; it need not exist.
    is_mark : callable
        Returns whether an entry with a name is a mark.
    """
    if not path.is_file():
        return []
    kept: list[zipfile.ZipInfo] = []
    read: list[zipfile.ZipInfo] = []
    end = 0
    with path.open("rb+") as file:
        for entry, stop in _complete_entries(file):
            read.append(entry)
            if is_mark(entry.filename):
                kept, end = kept + read, stop
                read = []
        if not kept:
            return []
        file.truncate(end)
    with zipfile.ZipFile(path, "a") as archive:  # there is no table of contents, so one is added
        for entry in kept:
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
    return [entry.filename for entry in kept]


def _complete_entries(file: IO[bytes]) -> Iterator[tuple[zipfile.ZipInfo, int]]:
    """Yield the entries up to the first damaged one, each with the position where it ends."""
    place, names = 0, set[bytes]()
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        signature, *_, checksum, stored, size, name_length, extra_length = _HEADER.unpack(header)
        if signature != _SIGNATURE or stored != size:
            return
        name, _ = file.read(name_length), file.read(extra_length)
        content = file.read(size)
        if len(content) != size or zlib.crc32(content) != checksum or name in names:
            return
        if not (name.isascii() and name.decode("ascii").isprintable()):  # no checksum covers names, keys of Zarr
            return
        names.add(name)
        entry = zipfile.ZipInfo(name.decode("ascii"))
        entry.header_offset, entry.CRC, entry.compress_size, entry.file_size = place, checksum, stored, size
        place = file.tell()
        yield entry, place
