"""Arrays larger than memory: their protocol, and how they are cut into blocks. Imports only numpy."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Array(Protocol):
    """Pixels that are decoded when a region of them is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any) -> Any: ...


class Lookup:
    """An array of (rows, columns) whose numbers are replaced by those of a table when they are read."""

    def __init__(self, numbers: Array, table: NDArray[Any]) -> None:
        self._numbers = numbers
        self._table = table
        self.shape, self.dtype = numbers.shape, table.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        found: NDArray[Any] = self._table[np.asarray(self._numbers[key])]
        return found


BLOCK_PX = 1024


def blocks(shape: tuple[int, ...], side: int = BLOCK_PX) -> Iterator[tuple[slice, slice]]:
    """Yield the regions of ``side`` x ``side`` pixels that cover ``shape``, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1]))


def outside_the_heap(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array whose memory is returned to the system when it is freed.

    The heap keeps its memory (``pipeline/runtime/device.py``). Arrays that live in it from one pass of the network to
    the next would fragment it, so that it grows.
    """
    size = max(1, math.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype=dtype, count=math.prod(shape)).reshape(shape)
