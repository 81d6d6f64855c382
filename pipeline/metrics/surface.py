"""Compute distances between the boundaries of a true and a predicted class, exactly and block by block.

The boundary of a class is its pixels that have a 4-neighbour of another class or lie at the edge of the image, as in
MONAI. The nearest boundary pixel is searched in the blocks that can hold it, nearest block first, so that neither a
distance map nor a list of all boundary pixels is ever in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.base.arrays import SQUARE_PX, Array, blocks
from pipeline.metrics.parallel_blocks import map_and_merge

_CACHED_TREES = 12

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Distances:
    """Distances of boundary pixels to the other boundary: each value once, ascending, and how often it occurs.

    Attributes
    ----------
    values : (n,) float64 array
        Infinite if there is no other boundary.
    counts : (n,) int64 array
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> Distances:
        """Count distances, one per pixel."""
        return cls(*np.unique(distances, return_counts=True))

    @classmethod
    def merge(cls, parts: list[Distances]) -> Distances:
        """Add up the distances of blocks."""
        values, where = np.unique(np.concatenate([np.empty(0), *(part.values for part in parts)]), return_inverse=True)
        counts = np.concatenate([np.empty(0, np.int64), *(part.counts for part in parts)])
        return cls(values, np.bincount(where, weights=counts, minlength=len(values)).astype(np.int64))

    @property
    def total(self) -> int:
        """Number of boundary pixels."""
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float:
        """Return a percentile of at least one distance, linear between neighbours as in :func:`numpy.percentile`."""
        position = (self.total - 1) * percent / 100
        ranks = np.asarray([np.floor(position), np.ceil(position)])
        low, high = self.values[np.searchsorted(np.cumsum(self.counts), ranks, side="right")]
        return float(low + (high - low) * (position - ranks[0])) if high > low else float(low)

    def within(self, tolerance: float) -> int:
        """Return how many distances are at most ``tolerance``."""
        return int(self.counts[self.values <= tolerance].sum())


def hausdorff95(to_predicted: Distances, to_truth: Distances) -> float:
    """Return the 95th percentile Hausdorff distance: the larger of both directions; NaN if a boundary is empty.

    Huttenlocher, Klanderman, Rucklidge (1993), doi:10.1109/34.232073.
    """
    if not (to_predicted.total and to_truth.total):
        return float("nan")
    return max(to_predicted.percentile(95), to_truth.percentile(95))


def average_distance(to_predicted: Distances, to_truth: Distances) -> float:
    """Return the average symmetric surface distance: the mean over both boundaries; NaN if a boundary is empty.

    Heimann et al. (2009), doi:10.1109/TMI.2009.2013851.
    """
    if not (to_predicted.total and to_truth.total):
        return float("nan")
    summed = sum(float(part.values @ part.counts) for part in (to_predicted, to_truth))
    return summed / (to_predicted.total + to_truth.total)


def surface_dice(to_predicted: Distances, to_truth: Distances, *, tolerance: float) -> float:
    """Return the share of both boundaries within ``tolerance`` of the other; NaN if both are empty.

    Nikolov et al. (2021), doi:10.2196/26151; boundary pixels are counted as in MONAI.
    """
    total = to_predicted.total + to_truth.total
    return (to_predicted.within(tolerance) + to_truth.within(tolerance)) / total if total else float("nan")


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a (rows, columns) mask with a 4-neighbour outside it, or at the edge of the array."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = mask & ~inside
    return edge


def surface_distances(
    truth: Array, predicted: Array, index: int, *, spacing: tuple[float, float], block_px: tuple[int, int] = SQUARE_PX
) -> tuple[Distances, Distances]:
    """Return the distances of each true boundary pixel of class ``index`` to the predicted boundary, and the reverse.

    Parameters
    ----------
    truth, predicted : (rows, columns) class maps
    spacing : (row, column)
        Size of a pixel; distances have its unit.
    block_px : (rows, columns)
        Of the blocks that are searched one by one.
    """
    true, found = (_Boundary(labels, index, spacing, block_px) for labels in (truth, predicted))
    return _distances(true, found), _distances(found, true)


def boundary_overlap(
    truth: Array, predicted: Array, index: int, *, width_px: int, block_px: tuple[int, int] = SQUARE_PX
) -> tuple[int, int]:
    """Return intersection and union, in pixels, of the true and the predicted inner band of class ``index``.

    The band is what an erosion by ``width_px`` (8-connected) removes; intersection / union is the boundary IoU of
    Cheng et al. (2021), doi:10.1109/CVPR46437.2021.01508.
    """

    def count(region: tuple[slice, slice]) -> NDArray[np.int64]:
        first, second = (_band(labels, index, region, width_px) for labels in (truth, predicted))
        return np.asarray([(first & second).sum(), (first | second).sum()])

    intersection, union = map_and_merge(count, blocks(truth.shape, block_px), partial(np.sum, axis=0))
    return int(intersection), int(union)


class _Boundary:
    """The boundary of one class as points, found block by block when they are needed."""

    def __init__(self, labels: Array, index: int, spacing: tuple[float, float], block_px: tuple[int, int]) -> None:
        self._labels, self._index, self._spacing = labels, index, spacing
        occupied = map_and_merge(self._box, blocks(labels.shape, block_px), lambda parts: [*chain(*parts)])
        self.regions = [region for region, _ in occupied]
        self.boxes = np.asarray([box for _, box in occupied]).reshape(-1, 2, 2)  # block, (low, high), axis
        self.tree = lru_cache(maxsize=_CACHED_TREES)(lambda number: cKDTree(self.points(self.regions[number])))

    def points(self, region: tuple[slice, slice]) -> Points:
        """Return the positions, (n, 2), of the boundary pixels in a region, in units of the spacing."""
        rows, columns = region
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in region)
        edge = boundary(np.asarray(self._labels[around]) == self._index)
        # The pixel added on every side is cut off again: its neighbours beyond are not known.
        top, left = rows.start - around[0].start, columns.start - around[1].start
        own = edge[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
        positions: Points = (np.argwhere(own) + np.asarray([rows.start, columns.start])) * self._spacing
        return positions

    def nearest(self, points: Points) -> NDArray[np.float64]:
        """Return the distance of each point to the boundary; infinite if there is none."""
        best = np.full(len(points), np.inf)
        low, high = points.min(axis=0), points.max(axis=0)
        gaps = np.maximum(0, np.maximum(self.boxes[:, 0] - high, low - self.boxes[:, 1]))
        bounds = np.hypot(gaps[:, 0], gaps[:, 1])  # no pair of a point and a pixel of the block is closer
        for number in np.argsort(bounds, kind="stable"):
            if bounds[number] >= best.max():
                break
            gap = np.maximum(0, np.maximum(self.boxes[number, 0] - points, points - self.boxes[number, 1]))
            closer = np.hypot(gap[:, 0], gap[:, 1]) < best
            if closer.any():
                best[closer] = np.minimum(best[closer], self.tree(number).query(points[closer])[0])
        return best

    def _box(self, region: tuple[slice, slice]) -> list[tuple[tuple[slice, slice], NDArray[np.float64]]]:
        """Return a region with the box of its points, in a list that is empty if it has none."""
        points = self.points(region)
        return [(region, np.stack([points.min(axis=0), points.max(axis=0)]))] if len(points) else []


def _distances(here: _Boundary, there: _Boundary) -> Distances:
    """Return the distance of each point of one boundary to the other boundary."""
    return map_and_merge(lambda region: Distances.of(there.nearest(here.points(region))), here.regions, Distances.merge)


def _band(labels: Array, index: int, region: tuple[slice, slice], width_px: int) -> NDArray[np.bool_]:
    """Return the inner band of a class in a region."""
    missing, around = [], []
    for side, length in zip(region, labels.shape, strict=True):
        low, high = side.start - width_px, side.stop + width_px
        missing.append((max(-low, 0), max(high - length, 0)))
        around.append(slice(max(low, 0), min(high, length)))
    mask = np.pad(np.asarray(labels[tuple(around)]) == index, missing)  # beyond the image all is outside
    eroded = scipy.ndimage.minimum_filter(mask.view(np.uint8), size=2 * width_px + 1)
    own = (slice(width_px, -width_px), slice(width_px, -width_px))
    band: NDArray[np.bool_] = mask[own] & (eroded[own] == 0)
    return band
