"""Compute metrics of probabilities without a threshold, exactly, from how often each value occurs.

Probabilities are float16, which has 15,361 values from 0 to 1: counting each value loses nothing, and the counts of
blocks are summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.labels import IGNORED

VALUES = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float64)  # every float16 in [0, 1], ascending
_BINS = 15


@dataclass(frozen=True, kw_only=True)
class ProbabilityCounts:
    """How often each probability occurred, and how often it was right.

    Attributes
    ----------
    seen, true : (classes, len(VALUES)) int64 arrays
        Pixels that were given this probability of a class; those of them that belong to it.
    sure, right : (len(VALUES),) int64 arrays
        Pixels whose most probable class has this probability; those of them where it is the true one.
    """

    seen: NDArray[np.int64]
    true: NDArray[np.int64]
    sure: NDArray[np.int64]
    right: NDArray[np.int64]

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: counts + vars(other)[name] for name, counts in vars(self).items()})


def count_probabilities(truth: NDArray[Any], probabilities: NDArray[np.float16]) -> ProbabilityCounts:
    """Count one block.

    Parameters
    ----------
    truth : (rows, columns) int array
        Pixels that are :data:`pipeline.slides.labels.IGNORED` are left out.
    probabilities : (classes, rows, columns) float16 array
        In [0, 1].
    """
    bits = np.ascontiguousarray(probabilities).view(np.uint16).reshape(len(probabilities), -1)
    classes = truth.ravel()
    if (unknown := classes == IGNORED).any():
        bits, classes = bits[:, ~unknown], classes[~unknown]
    best = bits.argmax(axis=0)  # the order of positive floats is that of their bits
    top = bits[best, np.arange(bits.shape[1])]
    return ProbabilityCounts(
        seen=np.stack([_count(values) for values in bits]),
        true=np.stack([_count(values[classes == index]) for index, values in enumerate(bits)]),
        sure=_count(top),
        right=_count(top[best == classes]),
    )


def average_precision(counts: ProbabilityCounts) -> NDArray[np.float64]:
    """Return the area under the precision-recall curve of each class, as a sum of steps: no interpolation.

    Returns
    -------
    (classes,) float64 array
        NaN for a class without true pixels.
    """
    true, seen = (np.cumsum(part[:, ::-1], axis=1) for part in (counts.true, counts.seen))  # from 1 down
    total = true[:, -1:]
    precision = np.divide(true, seen, out=np.zeros(true.shape), where=seen > 0)
    recall = np.divide(true, total, out=np.full(true.shape, np.nan), where=total > 0)
    area: NDArray[np.float64] = (np.diff(recall, axis=1, prepend=0) * precision).sum(axis=1)
    return area


def calibration_error(counts: ProbabilityCounts) -> float:
    """Return the expected calibration error of the most probable class, in 15 bins.

    The mean distance between the probability and the share of right pixels (Guo et al. 2017, arXiv:1706.04599); NaN
    without pixels.
    """
    total = counts.sure.sum()
    if total == 0:
        return float("nan")
    bins = np.clip(np.ceil(VALUES * _BINS).astype(int) - 1, 0, None)  # (0, 1/15], (1/15, 2/15], ...
    confidence = np.bincount(bins, weights=counts.sure * VALUES, minlength=_BINS)
    right = np.bincount(bins, weights=counts.right, minlength=_BINS)
    return float(np.abs(confidence - right).sum() / total)


def _count(bits: NDArray[np.uint16]) -> NDArray[np.int64]:
    return np.bincount(bits, minlength=len(VALUES))
