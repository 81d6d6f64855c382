"""Windows that reach beyond a slide: pixels outside are mirrored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tiling.grid import Region


def mirror(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the indices of [start, stop) reflected into [0, size), without repeating the edge.

    As numpy's ``reflect``, as often as needed: -1 becomes 1, ``size`` becomes ``size - 2``. A single pixel repeats.
    """
    if size == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (size - 1)
    indices = np.arange(start, stop, dtype=np.intp) % period
    return np.minimum(indices, period - indices)


def read_mirrored(read: Callable[[slice, slice], NDArray[Any]], shape: tuple[int, int], window: Region) -> NDArray[Any]:
    """Read a window that may reach beyond the slide.

    Parameters
    ----------
    read : callable
        Returns (channel, row, column) pixels of a row and a column slice inside the slide.
    shape : (rows, columns)
        Of the slide.
    window : Region
        What to read.

    Returns
    -------
    (channels, *window.shape) array
        Its axes lie in memory as those of what was read. Within the slide, it is what was read, not a copy.
    """
    rows = mirror(window.top, window.bottom, shape[0])
    columns = mirror(window.left, window.right, shape[1])
    block = read(slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    for axis, indices, start, length in ((2, columns, window.left, shape[1]), (1, rows, window.top, shape[0])):
        if start < 0 or start + len(indices) > length:
            inside = [int(np.clip(edge - start, 0, len(indices))) for edge in (0, length)]
            block = _take(block, indices - indices.min(), axis, *inside)
    return block


def _take(block: NDArray[Any], indices: NDArray[np.intp], axis: int, start: int, stop: int) -> NDArray[Any]:
    """Return a block at indices along an axis; those from ``start`` to ``stop`` count up."""
    whole: tuple[Any, ...] = (slice(None),) * axis
    taken = np.empty_like(block, shape=(*block.shape[:axis], len(indices), *block.shape[axis + 1 :]))
    if start < stop:
        taken[*whole, start:stop] = block[*whole, indices[start] : indices[start] + stop - start]
    for outside in (slice(0, start), slice(stop, len(indices))):
        taken[*whole, outside] = block[*whole, indices[outside]]  # numpy's take would copy the block first
    return taken
