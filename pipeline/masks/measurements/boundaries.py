"""Boundaries of objects: their length and holes from patterns of 2 x 2 pixels, and which pixels lie on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of each pattern of pixels inside (1 south east, 2 north east, 4 south west, 8 north west): how many lines along rows
# and columns, and along diagonals, enter the object here, so that each entry is counted once; four times what it adds
# to the number of pieces (8-connected) less holes (Gray 1971, doi:10.1109/T-C.1971.223289).
_STRAIGHT = np.array([0, 1, 0, 0, 0, 1, 0, 0, 1, 2, 0, 0, 1, 2, 0, 0])
_DIAGONAL = np.array([0, 1, 1, 2, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0])
_EULER = np.array([0, 1, 1, 0, 1, 0, -2, -1, 1, -2, 0, -1, 0, -1, -1, 0])
_COUNTS = np.stack([_STRAIGHT, _DIAGONAL, _EULER], axis=1)


def count_patterns(window: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Count the patterns of 2 x 2 pixels of a window of object ids, those around the first corner of each inner pixel.

    Returns
    -------
    ids : (m,) array
        Objects with a boundary there, ascending.
    counts : (m, 3) array
        To be added over all windows of the image, and passed to :func:`perimeters` and :func:`holes`.
    """
    north, south = window[:-2, :-1], window[1:-1, :-1]
    quads = {8: north[:, :-1], 2: north[:, 1:], 4: south[:, :-1], 1: south[:, 1:]}
    differ = np.flatnonzero((quads[1] != quads[2]) | (quads[1] != quads[4]) | (quads[1] != quads[8]))
    places = np.unravel_index(differ, quads[1].shape)
    around = {bit: quad[places].astype(np.int64) for bit, quad in quads.items()}
    keys = []
    for bit, own in around.items():
        pattern = sum((own == other) * weight for weight, other in around.items())
        first = (own > 0) & (pattern < 2 * bit)  # the highest bit of its pattern: each object of a quad once
        keys.append(own[first] * 16 + pattern[first])
    found, numbers = np.unique(np.concatenate(keys), return_counts=True)
    ids, starts = np.unique(found // 16, return_index=True)
    if not len(ids):
        return ids, np.zeros((0, 3), np.int64)
    return ids, np.add.reduceat(numbers[:, None] * _COUNTS[found % 16], starts)


def perimeters(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the perimeters (px) by Crofton's formula in four directions, as :func:`skimage.measure.perimeter_crofton`.

    Lines along rows and columns are 1 apart, those along diagonals 1 / sqrt(2).
    """
    lengths: NDArray[np.float64] = np.pi / 4 * (counts[:, 0] + counts[:, 1] / np.sqrt(2))
    return lengths


def holes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of holes: 1 less the Euler number of :func:`skimage.measure.regionprops`."""
    return 1 - counts[:, 2] // 4


def on_boundary(ids: NDArray[Any], places: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which pixels have a 4-neighbour that is not of their object; ``places`` are in the flattened window."""
    flat, own = ids.ravel(), ids.ravel()[places]
    outside: NDArray[np.bool_] = np.zeros(len(places), dtype=bool)
    for step in (-1, 1, -ids.shape[1], ids.shape[1]):
        outside |= flat[places + step] != own
    return outside
