"""Arrays larger than memory: one protocol, arrays that are computed when they are read, and how to cut them up."""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

SQUARE_PX = (1024, 1024)  # block of work on scratch arrays, which have chunks of this size
STRIP_PX = (512, 8192)  # block of work on mask files: 16 tiles side by side, so that no tile is decoded twice

_unused: deque[mmap.mmap] = deque(maxlen=4)  # memory of arrays outside the heap; what is more is returned


class Array(Protocol):
    """Pixels that are sliced by region: a numpy array, a zarr array or a :class:`LazyArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any) -> Any: ...


class WritableArray(Array, Protocol):
    """An :class:`Array` whose regions can also be set: a numpy array or a zarr array."""

    def __setitem__(self, key: Any, value: Any) -> None: ...


@dataclass(frozen=True)
class LazyArray:
    """An array whose pixels are computed when a region is sliced.

    ``read`` gets one argument per axis, an integer or a slice with both ends inside the array, and returns that region.
    ``in_strips``: a part of some rows takes as long as all of them, as in a file that stores whole rows together.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[..., NDArray[Any]]
    in_strips: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes; dask asks for it."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        parts += (slice(None),) * (self.ndim - len(parts))
        both = zip(parts, self.shape, strict=True)
        return self.read(*(slice(*part.indices(n)) if isinstance(part, slice) else part for part, n in both))


def lookup(numbers: Array, table: NDArray[Any]) -> LazyArray:
    """Return ``table[numbers]`` as an array that is looked up where it is read."""
    return LazyArray(numbers.shape, table.dtype, lambda *key: table[np.asarray(numbers[key])])


def below_each_other(arrays: Sequence[Array]) -> Array:
    """Return arrays of one shape, (..., rows, columns), as one that has the rows of the first, of the second, ..."""
    if len(arrays) == 1:
        return arrays[0]
    *leading, height, width = arrays[0].shape

    def read(*key: Any) -> NDArray[Any]:
        *place, rows, columns = key
        parts = [
            np.asarray(array[(*place, slice(max(rows.start - top, 0), min(rows.stop - top, height)), columns)])
            for top, array in zip(range(0, height * len(arrays), height), arrays, strict=True)
            if rows.start < top + height and top < rows.stop
        ]
        return np.concatenate(parts, axis=-2)

    return LazyArray((*leading, height * len(arrays), width), arrays[0].dtype, read)


def part_of(stack: Array, number: int) -> LazyArray:
    """Return one of the arrays of a (number, ...) array, read where it is sliced."""
    return LazyArray(stack.shape[1:], stack.dtype, lambda *key: np.asarray(stack[(number, *key)]))


def rows_of(array: Array, number: int, count: int) -> Array:
    """Return number ``number`` of the ``count`` arrays that are :func:`below_each_other`, (rows, columns)."""
    if count == 1:
        return array
    height = array.shape[0] // count

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        return np.asarray(array[number * height + rows.start : number * height + rows.stop, columns])

    return LazyArray((height, array.shape[1]), array.dtype, read)


def distinct(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers that occur in an image of classes or ids, as :func:`numpy.unique` does.

    Only those that differ from the one before are compared: there are few, and :func:`numpy.unique` is slow.
    """
    flat = numbers.ravel()
    return np.unique(np.concatenate([flat[:1], flat[1:][flat[1:] != flat[:-1]]]))


def bands(length: int, height: int) -> Iterator[slice]:
    """Yield slices of ``height`` rows that cover ``length`` rows in order; the last may be shorter."""
    return (slice(start, min(start + height, length)) for start in range(0, length, height))


def blocks(shape: tuple[int, ...], block_px: tuple[int, int] = SQUARE_PX) -> Iterator[tuple[slice, slice]]:
    """Yield the regions of at most ``block_px`` (rows, columns) that cover ``shape``, row by row."""
    return ((rows, columns) for rows in bands(shape[0], block_px[0]) for columns in bands(shape[1], block_px[1]))


def widened(region: tuple[slice, ...], margin_px: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
    """Return a region with a margin, cut off at the edges of an array, and where in it the region lies."""
    both = list(zip(region, shape, strict=True))
    wide = [slice(max(0, side.start - margin_px), min(length, side.stop + margin_px)) for side, length in both]
    own = [slice(side.start - more.start, side.stop - more.start) for side, more in zip(region, wide, strict=True)]
    return tuple(wide), tuple(own)


def outside_the_heap(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array whose memory is not of the heap; its numbers are arbitrary.

    The heap keeps its memory (``pipeline/runtime/device.py``). Arrays that live in it from one pass of the network to
    the next would fragment it, so that it grows. The memory of the last few that are gone is used again: new memory
    takes longer to get from the system than to fill.
    """
    count = math.prod(shape)
    size = max(1, count * np.dtype(dtype).itemsize)
    memory = _unused_memory(size) or mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(memory, dtype=dtype, count=count)
    weakref.finalize(array, _unused.append, memory).atexit = False  # views of the array keep it alive
    return array.reshape(shape)


def _unused_memory(size: int) -> mmap.mmap | None:
    """Take memory that was used before, if some of about this size is left. Several threads may ask."""
    for _ in range(len(_unused)):
        try:
            memory = _unused.popleft()
        except IndexError:
            return None
        if size <= len(memory) <= 2 * size:
            return memory
        _unused.append(memory)
    return None
