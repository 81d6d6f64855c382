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
        Rows follow each other in memory, as in what was read. Within the slide, it is what was read, not a copy.
    """
    rows = mirror(window.top, window.bottom, shape[0])
    columns = mirror(window.left, window.right, shape[1])
    block = read(slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    if window.left < 0 or window.right > shape[1]:
        inside = [int(np.clip(edge, window.left, window.right)) - window.left for edge in (0, shape[1])]
        block = _columns(block, columns - columns.min(), *inside)
    return block if window.top >= 0 and window.bottom <= shape[0] else np.take(block, rows - rows.min(), axis=1)


def _columns(block: NDArray[Any], indices: NDArray[np.intp], start: int, stop: int) -> NDArray[Any]:
    """Return ``block[:, :, indices]`` with rows that follow each other; from ``start`` to ``stop`` indices count up."""
    taken = np.empty((*block.shape[:2], len(indices)), block.dtype)
    if start < stop:
        taken[:, :, start:stop] = block[:, :, indices[start] : indices[start] + stop - start]
    for outside in (slice(0, start), slice(stop, len(indices))):
        taken[:, :, outside] = np.take(block, indices[outside], axis=2)
    return taken
