"""Temporary arrays on disk, larger than memory, read and written by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec


def scratch_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any] | str, *, chunks: tuple[int, int]
) -> zarr.Array[Any]:
    """Return a new (rows, columns) array of zeros at ``path``, in chunks of at most ``chunks`` (rows, columns).

    LZ4 with shuffled bytes shrinks label images to a hundredth, faster than a disk could write them.
    """
    kind = np.dtype(dtype)
    return zarr.create_array(
        path,
        shape=shape,
        chunks=(min(chunks[0], shape[0]), min(chunks[1], shape[1])),
        dtype=kind,
        compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=kind.itemsize),
        fill_value=0,
    )
