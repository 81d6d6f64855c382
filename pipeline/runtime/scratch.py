"""Temporary arrays, read and written by block: on disk if they are large, in memory if they are small."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from pipeline.base.arrays import WritableArray

_IN_MEMORY_BYTES = 2**22  # making and removing files takes longer than all work on a small image


def scratch_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any] | str, *, chunks: tuple[int, ...]
) -> WritableArray:
    """Return a new array of zeros, (rows, columns) or with axes before these, in memory up to 4 MiB, else at ``path``.

    On disk it has chunks of at most ``chunks``, a side per axis, compressed by LZ4 with shuffled bytes, which shrinks
    label images to a hundredth, faster than a disk could write them.
    """
    kind = np.dtype(dtype)
    if math.prod(shape) * kind.itemsize <= _IN_MEMORY_BYTES:
        return np.zeros(shape, kind)
    return zarr.create_array(
        path,
        shape=shape,
        chunks=tuple(map(min, chunks, shape)),
        dtype=kind,
        compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=kind.itemsize),
        fill_value=0,
    )
