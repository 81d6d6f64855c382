"""Overlap metrics from counts of pixels.

One confusion matrix says everything: it is summed over blocks, so a slide larger than memory is counted exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def confusion(truth: NDArray[Any], predicted: NDArray[Any], *, num_classes: int) -> Counts:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth, predicted : int arrays of one shape
        Class maps with values in [0, num_classes).

    Returns
    -------
    (num_classes, num_classes) int64 array
        Rows are true classes, columns predicted ones.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth and predicted differ in shape: {truth.shape} and {predicted.shape}")
    pairs = truth.astype(np.int64).ravel() * num_classes + predicted.ravel()
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def dice(counts: Counts) -> NDArray[np.float64]:
    """Return the Dice coefficient of every class, 2|A and B| / (|A|+|B|); NaN for a class absent from both maps.

    Parameters
    ----------
    counts : (C, C) int64 array
        From :func:`confusion`.

    References
    ----------
    Dice (1945), doi:10.2307/1932409
    """
    return _ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def jaccard(counts: Counts) -> NDArray[np.float64]:
    """Return the Jaccard index of every class, |A and B| / |A or B|; NaN for a class absent from both maps.

    Parameters
    ----------
    counts : (C, C) int64 array
        From :func:`confusion`.

    References
    ----------
    Jaccard (1912), doi:10.1111/j.1469-8137.1912.tb05611.x
    """
    return _ratio(np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts))


def mean_over_classes(values: NDArray[np.float64]) -> float:
    """Return the mean over the classes that have a value; NaN if none has."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _ratio(numerator: Counts, denominator: Counts) -> NDArray[np.float64]:
    ratio = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio
