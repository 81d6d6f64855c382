"""Compute overlap metrics from a confusion matrix.

The matrix is summed over blocks, so a slide larger than memory is counted exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.labels import IGNORED

Counts = NDArray[np.int64]


class OneVsRest(NamedTuple):
    """Pixels of each class against all others: four arrays of one shape."""

    true_positive: Counts
    false_positive: Counts
    false_negative: Counts
    true_negative: Counts


# Numerator and denominator of each; the names are those of the columns in results/metrics-all.csv.
_RATIOS: Mapping[str, Callable[[OneVsRest], tuple[Counts, Counts]]] = {
    # Dice (1945), doi:10.2307/1932409
    "dice": lambda n: (2 * n.true_positive, 2 * n.true_positive + n.false_positive + n.false_negative),
    # Jaccard (1912), doi:10.1111/j.1469-8137.1912.tb05611.x
    "jaccard": lambda n: (n.true_positive, n.true_positive + n.false_positive + n.false_negative),
    "precision": lambda n: (n.true_positive, n.true_positive + n.false_positive),
    "recall": lambda n: (n.true_positive, n.true_positive + n.false_negative),
    "specificity": lambda n: (n.true_negative, n.true_negative + n.false_positive),
    "accuracy": lambda n: (n.true_positive + n.true_negative, np.sum(n, axis=0)),
}
OVERLAP = tuple(_RATIOS)


def confusion(truth: NDArray[Any], predicted: NDArray[Any], *, num_classes: int) -> Counts:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth, predicted : int arrays of one shape
        Class maps with values in [0, num_classes); pixels whose truth is ``IGNORED`` are left out.

    Returns
    -------
    (num_classes, num_classes) int64 array
        Rows are true classes, columns predicted ones.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth and predicted differ in shape: {truth.shape} and {predicted.shape}")
    pairs = truth.astype(np.int64).ravel() * num_classes + predicted.ravel()
    is_ignored = truth.ravel() == IGNORED
    if is_ignored.any():
        pairs = pairs[~is_ignored]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(name: str, counts: Counts) -> NDArray[np.float64]:
    """Return one of :data:`OVERLAP` for every class, each against all others.

    Parameters
    ----------
    counts : (C, C) int64 array
        From :func:`confusion`.

    Returns
    -------
    (C,) float64 array
        In [0, 1]; NaN where the denominator is zero.
    """
    return _ratio(*_RATIOS[name](_one_vs_rest(counts)))


def pooled(name: str, counts: Counts) -> float:
    """Return one of :data:`OVERLAP` of all pixels and classes together (the "micro" average): large classes count more.

    Dice, precision and recall pooled are one number, the share of pixels with the right class.
    """
    together = OneVsRest(*(np.asarray([part.sum()]) for part in _one_vs_rest(counts)))
    return float(_ratio(*_RATIOS[name](together))[0])


def pixel_accuracy(counts: Counts) -> float:
    """Return the share of pixels that have the right class."""
    return float(_ratio(np.trace(counts)[None], counts.sum()[None])[0])


def mean_over_classes(values: NDArray[np.float64]) -> float:
    """Return the mean over the classes that have a value; NaN if none has."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _one_vs_rest(counts: Counts) -> OneVsRest:
    right, truth, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return OneVsRest(right, predicted - right, truth - right, counts.sum() - truth - predicted + right)


def _ratio(numerator: Counts, denominator: Counts) -> NDArray[np.float64]:
    ratio = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio
