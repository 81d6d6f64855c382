"""How many bytes a compressed chunk decodes to, before it is decoded: a small one can stand for gigabytes.

Blosc, LZ4 (numcodecs) and Zstandard (RFC 8878, 3.1.1.1) state it, and decoders keep to what is stated. DEFLATE, BZ2
and LZMA do not; their chunks are decoded in small pieces to count, if they are large enough to matter.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable

_MOST_DEFLATED = 1032  # times: no DEFLATE stream is longer than that when decoded
_PIECE = 2**20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SIZES = {1: "<H", 2: "<I", 3: "<Q"}
# Files of several streams count as a whole, as for the decoders
_FILES: dict[str, Callable[[io.BytesIO], io.BufferedIOBase]] = {
    "gzip": lambda data: gzip.GzipFile(fileobj=data),
    "bz2": bz2.BZ2File,
    "lzma": lzma.LZMAFile,
}


def decoded_bytes(codec: str, data: bytes, limit: int) -> int:
    """Return the length of a decoded chunk; 0 if it cannot be told; counted no further than ``limit``.

    Raises
    ------
    ValueError
        If a chunk of Blosc is cut short: its decoder would return pixels all the same.
    """
    name = codec.rpartition(".")[2].lower()
    try:
        if name == "blosc":
            size, stored = struct.unpack_from("<I4xI", data, 4)
            if len(data) < stored:
                raise ValueError(f"the chunk is cut short, {len(data)} of {stored} bytes; copy it again")
            return int(size)
        if name == "lz4":
            return int(struct.unpack_from("<I", data)[0])
        if name == "zstd":
            return _of_zstd(data)
        is_small = name in ("gzip", "zlib") and len(data) * _MOST_DEFLATED <= limit
        if name == "zlib" and not is_small:
            return _of_zlib(data, limit)
        if name in _FILES and not is_small:
            return _of_file(_FILES[name], data, limit)
    except (struct.error, IndexError, OSError, EOFError, zlib.error, lzma.LZMAError):  # damaged; the decoder says how
        pass
    return 0


def _of_zstd(data: bytes) -> int:
    descriptor = data[4] if data[:4] == _ZSTD_MAGIC else 0
    flag, is_single, dictionary = descriptor >> 6, descriptor >> 5 & 1, (0, 1, 2, 4)[descriptor & 3]
    place = 5 + (1 - is_single) + dictionary
    if flag == 0:
        return data[place] if is_single else 0
    (size,) = struct.unpack_from(_ZSTD_SIZES[flag], data, place)
    return int(size) + (256 if flag == 1 else 0)


def _of_zlib(data: bytes, limit: int) -> int:
    decoder, count, left = zlib.decompressobj(), 0, data
    while left and not decoder.eof and count <= limit:
        count += len(decoder.decompress(left, _PIECE))
        left = decoder.unconsumed_tail
    return count


def _of_file(opened: Callable[[io.BytesIO], io.BufferedIOBase], data: bytes, limit: int) -> int:
    count = 0
    with opened(io.BytesIO(data)) as file:
        while count <= limit and (piece := file.read(_PIECE)):
            count += len(piece)
    return count
