"""Compute metrics from the distances between the boundaries of a true and a predicted class.

Distances are counted by value (``pipeline/metrics/boundaries.py`` measures them), so that blocks of a slide add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Relative error of a pixel size in a file (a ratio of integers, a float32) and of a computed distance. Far below the
# gap between two distances in pixels: 1e-4 at 70 px.
ROUNDING = 1e-6


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
        """Return how many distances are at most ``tolerance``, apart from rounding (:data:`ROUNDING`)."""
        return int(self.counts[self.values <= tolerance * (1 + ROUNDING)].sum())


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
    # Not a dot product: BLAS adds up in another order in two threads.
    summed = sum(float((part.values * part.counts).sum()) for part in (to_predicted, to_truth))
    return summed / (to_predicted.total + to_truth.total)


def surface_dice(to_predicted: Distances, to_truth: Distances, *, tolerance: float) -> float:
    """Return the share of both boundaries within ``tolerance`` of the other; NaN if both are empty.

    Nikolov et al. (2021), doi:10.2196/26151; boundary pixels are counted as in MONAI.
    """
    total = to_predicted.total + to_truth.total
    return (to_predicted.within(tolerance) + to_truth.within(tolerance)) / total if total else float("nan")


def band_width_px(tolerance: float, spacing: tuple[float, float]) -> int:
    """Return the width of the bands of the boundary IoU: the tolerance in pixels, rounded half up; at least 1.

    >>> band_width_px(0.8125, (0.325, 0.325)), band_width_px(2.5, (1, 1))
    (3, 3)
    """
    return max(1, math.floor(tolerance / (sum(spacing) / 2) * (1 + ROUNDING) + 0.5))
