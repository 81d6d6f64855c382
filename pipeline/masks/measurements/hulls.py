"""Convex hulls of many objects at once, from where the rows of each begin and end.

The hull is that of :func:`skimage.morphology.convex_hull_image`: of the middles of the four sides of each pixel. All
coordinates are doubled, (row, column) pixel centres being even, so that they are whole numbers and nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.base.arrays import bands

_SIDES = np.array([[0, -1, 0], [0, 1, 1], [-1, 0, 0], [-1, 0, 1], [1, 0, 0], [1, 0, 1]])  # row, column, which end
_TOGETHER, _MOST_PAIRS = 256, 2**20  # hulls, and pairs of their sides and corners, at a time


@dataclass(frozen=True)
class Spans:
    """Rows of objects: those of each one after the other, in any order and number.

    Attributes
    ----------
    counts : (m,) array
        How many spans each object has, at least 1.
    rows, begins, ends : (n,) arrays
        Row, first and last column of each.
    """

    counts: NDArray[Any]
    rows: NDArray[Any]
    begins: NDArray[Any]
    ends: NDArray[Any]


def measure_hulls(spans: Spans) -> NDArray[np.float64]:
    """Return the pixels inside the hull of each object, and its largest and smallest Feret diameter, (3, m).

    A pixel is inside if its centre is, or lies on the hull. The diameters are those of these pixels: the largest
    distance of two of the points above, and the least distance of two parallel lines with all of them between.

    Examples
    --------
    Three pixels around a corner; the fourth is outside.

    >>> measure_hulls(Spans(np.array([2]), np.array([0, 1]), np.array([0, 0]), np.array([1, 0]))).round(3).tolist()
    [[3.0], [2.236], [1.414]]
    """
    inside = _pixels_inside(*_hulls(spans))
    areas = np.add.reduceat(inside.ends - inside.begins + 1, np.cumsum(inside.counts) - inside.counts)
    return np.stack([areas, *(_diameters(*_hulls(inside)) / 2)])


def _hulls(spans: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners of all hulls, each closed, and where each starts (and the last ends)."""
    doubled = 2 * np.stack([spans.begins, spans.ends])
    points = np.empty((len(spans.rows), len(_SIDES), 2))
    for nth, (down, across, end) in enumerate(_SIDES):
        points[:, nth, 0] = 2 * spans.rows + down
        points[:, nth, 1] = doubled[end] + across
    owners = np.repeat(np.arange(len(spans.counts)), len(_SIDES) * spans.counts)
    hulls = shapely.convex_hull(shapely.linestrings(points.reshape(-1, 2), indices=owners))
    _, corners, (starts, _) = shapely.to_ragged_array(hulls)
    return corners.astype(np.int64), starts.astype(np.int64)


def _pixels_inside(corners: NDArray[np.int64], starts: NDArray[np.int64]) -> Spans:
    """Return the pixels of each row of each hull; a row without any between two others has a span of no pixels."""
    owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    sides = np.flatnonzero((owners[1:] == owners[:-1]) & (corners[1:, 0] != corners[:-1, 0]))
    owners = owners[sides]
    downwards = corners[sides, 0] < corners[sides + 1, 0]
    upper, lower = (corners[np.where(downwards == first, sides, sides + 1)] for first in (True, False))
    first, last = -(-upper[:, 0] // 2), lower[:, 0] // 2  # rows of pixels that the side crosses
    lengths = np.maximum(last - first + 1, 0)
    rows = np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    (top, left), (bottom, right) = (np.repeat(ends, lengths, axis=0).T for ends in (upper, lower))
    above, below = left * (bottom - top) + (right - left) * (2 * rows - top), 2 * (bottom - top)
    tops, bottoms = (limit.reduceat(corners[:, 0], starts[:-1]) for limit in (np.minimum, np.maximum))
    counts = (bottoms - tops) // 2  # tops and bottoms are odd
    places = (np.cumsum(counts) - counts - (tops + 1) // 2)[np.repeat(owners, lengths)] + rows
    begins = np.full(counts.sum(), np.iinfo(np.int64).max)
    ends = np.full(counts.sum(), np.iinfo(np.int64).min)
    np.minimum.at(begins, places, -(-above // below))
    np.maximum.at(ends, places, above // below)
    ranks = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Spans(counts, np.repeat((tops + 1) // 2, counts) + ranks, begins, ends)


def _diameters(corners: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the largest and the smallest distance of two parallel lines that touch each hull on both sides, (2, m).

    The smallest is between a side and a corner (Houle and Toussaint 1988, doi:10.1109/34.6790).
    """
    counts = np.diff(starts)
    found = np.empty((2, len(counts)))
    order = np.argsort(counts, kind="stable")  # hulls with about as many corners are measured together
    for part in bands(len(order), _TOGETHER):
        own = order[part]
        places = np.minimum(np.arange(counts[own[-1]]), counts[own, None] - 1)  # the last corner, again and again
        found[:, own] = _padded_diameters(corners[starts[own, None] + places].astype(np.float64))
    return found


def _padded_diameters(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both diameters of hulls with closed, equally long rings of corners, (hulls, corners, 2)."""
    steps = np.diff(corners, axis=1)
    lengths = np.hypot(steps[..., 0], steps[..., 1])
    largest, smallest = np.zeros(len(corners)), np.full(len(corners), np.inf)
    for part in bands(steps.shape[1], max(1, _MOST_PAIRS // corners[..., 0].size)):
        down, across = (corners[:, None, :, axis] - corners[:, part, None, axis] for axis in (0, 1))
        largest = np.maximum(largest, (down**2 + across**2).max(axis=(1, 2)))
        heights = np.abs(down * steps[:, part, None, 1] - across * steps[:, part, None, 0]).max(axis=2)
        own = lengths[:, part]
        heights = np.divide(heights, own, out=np.full(own.shape, np.inf), where=own > 0)
        smallest = np.minimum(smallest, heights.min(axis=1))
    return np.sqrt(largest), smallest
