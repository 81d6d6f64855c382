"""Pixels whose stored numbers are not brightness: white stored as 0, and numbers of colours in a palette."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array


class Inverted:
    """An array in which 0 is white, read so that 0 is black."""

    def __init__(self, array: Array, bits: int) -> None:
        if array.dtype.kind not in "bu":
            raise ValueError(f"white stored as 0 in pixels of type {array.dtype} has no meaning; save it again")
        self.shape, self.dtype = array.shape, array.dtype
        self._array, self._white = array, 2**bits - 1

    def __getitem__(self, key: Any) -> NDArray[Any]:
        stored = np.asarray(self._array[key])
        return ~stored if self.dtype == bool else (self._white - stored).astype(self.dtype)


class Painted:
    """An array of numbers of colours, read as RGB along a last axis of its own.

    ``palette`` is (3, colours) uint16, as in TIFF; it is read as 8 bit where it has no more, as most have.
    """

    def __init__(self, array: Array, palette: NDArray[np.uint16] | None) -> None:
        if palette is None or array.dtype.kind not in "bu":
            raise ValueError("a palette image without a palette; save it in grey or RGB")
        eight_bit = bool((palette % 257 == 0).all() or (palette % 256 == 0).all())
        self._colours = (palette >> 8).astype(np.uint8).T if eight_bit else palette.T
        self.shape, self.dtype = (*array.shape, 3), self._colours.dtype
        self._array = array

    def __getitem__(self, key: Any) -> NDArray[Any]:
        stored = np.asarray(self._array[key[:-1]]).astype(np.intp)
        if stored.size and stored.max() >= len(self._colours):
            raise ValueError(f"pixel value {stored.max()} is not in its palette of {len(self._colours)} colours")
        return self._colours[stored][..., key[-1]]
