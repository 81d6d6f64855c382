"""Turn stored numbers that are not brightness into brightness: white stored as 0, and numbers of palette colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray


def invert(array: Array, bits: int) -> LazyArray:
    """Return an array in which 0 is white so that 0 is black."""
    if array.dtype.kind not in "bu":
        raise ValueError(f"white is stored as 0 in pixels of type {array.dtype}, not unsigned; save it with black as 0")

    def read(*key: Any) -> NDArray[Any]:
        stored = np.asarray(array[key])
        return ~stored if array.dtype == bool else (2**bits - 1 - stored).astype(array.dtype)

    return LazyArray(array.shape, array.dtype, read)


def apply_palette(array: Array, palette: NDArray[np.uint16] | None) -> LazyArray:
    """Return an array of colour numbers as RGB along a new last axis.

    ``palette`` is (3, colours) uint16, as in TIFF; most hold 8 bit colours, which are returned as uint8.
    """
    if palette is None or array.dtype.kind not in "bu":
        raise ValueError("a palette image without a palette; save it in grey or RGB")
    eight_bit = bool((palette % 257 == 0).all() or (palette % 256 == 0).all())
    colours = (palette >> 8).astype(np.uint8).T if eight_bit else palette.T

    def read(*key: Any) -> NDArray[Any]:
        stored = np.asarray(array[key[:-1]]).astype(np.intp)
        if stored.size and stored.max() >= len(colours):
            raise ValueError(f"pixel value {stored.max()} is not in its palette of {len(colours)} colours; save as RGB")
        return colours[stored][..., key[-1]]

    return LazyArray((*array.shape, 3), colours.dtype, read)
