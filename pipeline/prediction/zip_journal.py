"""A zip that is also the journal of its making: what was complete when the process was killed is in it again.

Entries are only ever added at the end, each under a name of its own, with its length and checksum before it. Some of
them are marks: what is before the last mark belongs together. A killed process leaves no table of contents, and perhaps
half an entry.
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
    """Cut a zip off behind its last mark and give it a table of contents again; return the names of its entries.

    No name, and no change, where there is no mark: there is nothing to go on from.

    Parameters
    ----------
    path : Path
        Of a zip whose entries are not compressed and have names in ASCII, whole or not; it need not exist.
    is_mark : callable
        Says of the name of an entry whether it is a mark.
    """
    if not path.is_file():
        return []
    kept: list[zipfile.ZipInfo] = []
    read: list[zipfile.ZipInfo] = []
    end = 0
    with path.open("rb+") as file:
        for entry, behind in _complete_entries(file):
            read.append(entry)
            if is_mark(entry.filename):
                kept, end = kept + read, behind
                read = []
        if not kept:
            return []
        file.truncate(end)
    with zipfile.ZipFile(path, "a") as archive:  # no table of contents is found, so that one is added
        for entry in kept:
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
    return [entry.filename for entry in kept]


def _complete_entries(file: IO[bytes]) -> Iterator[tuple[zipfile.ZipInfo, int]]:
    """Yield the entries from the first to the last one that is whole, each with the place where it ends."""
    place, names = 0, set[bytes]()
    while len(header := file.read(_HEADER.size)) == _HEADER.size:
        signature, *_, checksum, stored, size, name_length, extra_length = _HEADER.unpack(header)
        if signature != _SIGNATURE or stored != size:
            return
        name, _ = file.read(name_length), file.read(extra_length)
        content = file.read(size)
        if len(content) != size or zlib.crc32(content) != checksum or name in names or not _is_name(name):
            return
        names.add(name)
        entry = zipfile.ZipInfo(name.decode("ascii"))
        entry.header_offset, entry.CRC, entry.compress_size, entry.file_size = place, checksum, stored, size
        place = file.tell()
        yield entry, place


def _is_name(name: bytes) -> bool:
    """Whether this can be the name of an entry: no checksum covers it, and all names are keys of Zarr, in ASCII."""
    return name.isascii() and name.decode("ascii").isprintable()
