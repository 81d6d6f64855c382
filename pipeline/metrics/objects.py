"""Compute metrics of objects: which true objects are found, judged by overlap.

All follow from one sparse table of the pixels that each true object shares with each predicted one, summed over blocks.
An object only matches an object of its own class. Pixels without annotation are left out, and with them the predicted
objects that lie mostly there and have no partner (the "void" of Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage.metrics import adapted_rand_error


def shared_pixels(truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.int64]:
    """Count the pixels of one block by true and predicted object.

    Parameters
    ----------
    truth, predicted : (rows, columns) int arrays
        Object ids below 2³¹, 0 = background.

    Returns
    -------
    (n, 3) int64 array
        True id, predicted id, pixels; each pair once, background included.
    """
    pairs, pixels = np.unique(
        truth.astype(np.int64).ravel() << 32 | predicted.astype(np.int64).ravel(), return_counts=True
    )
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF, pixels], axis=1)


def merge_shared(blocks: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the :func:`shared_pixels` of several blocks together; a pair may be in it more than once."""
    return np.concatenate([np.empty((0, 3), dtype=np.int64), *blocks])


def contingency(table: NDArray[np.int64], objects: tuple[int, int]) -> scipy.sparse.csr_array:
    """Sum shared pixels by pair of objects.

    Parameters
    ----------
    table : (n, 3) int64 array
        From :func:`shared_pixels` or :func:`merge_shared`.
    objects : (int, int)
        Numbers of true and of predicted objects.

    Returns
    -------
    (true objects + 1, predicted objects + 1) sparse int64 array
        Row and column 0 are background.
    """
    shape = (objects[0] + 1, objects[1] + 1)
    return scipy.sparse.coo_array((table[:, 2], (table[:, 0], table[:, 1])), shape=shape).tocsr()


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Objects matched one to one where their intersection over union reaches a threshold.

    Attributes
    ----------
    matched, false_positive, false_negative
        Numbers of pairs, of predicted objects and of true ones without a partner; hidden objects are no false ones.
    mean_iou
        Of the matched pairs; NaN without any.
    """

    matched: int
    false_positive: int
    false_negative: int
    mean_iou: float

    @property
    def precision(self) -> float:
        """Share of the predicted objects that are true."""
        return _ratio(self.matched, self.matched + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of the true objects that were found."""
        return _ratio(self.matched, self.matched + self.false_negative)

    @property
    def f1(self) -> float:
        """Dice of the objects."""
        return _ratio(2 * self.matched, 2 * self.matched + self.false_positive + self.false_negative)

    @property
    def average_precision(self) -> float:
        """Matched pairs per pair or lone object (Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7)."""
        return _ratio(self.matched, self.matched + self.false_positive + self.false_negative)

    @property
    def panoptic_quality(self) -> float:
        """Mean overlap of the pairs times F1 (Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963)."""
        return self.mean_iou * self.f1 if self.matched else self.f1


@dataclass(frozen=True, kw_only=True)
class ObjectErrors:
    """What is wrong with objects, judged by who lies mostly (more than half of the pixels) in whom.

    Attributes
    ----------
    objects_merged
        Predicted objects in which two or more true objects lie mostly.
    objects_split
        True objects in which two or more predicted objects lie mostly.
    objects_missed
        True objects of which at most half is in predicted objects.
    objects_spurious
        Predicted objects of which at most half is in true objects; hidden ones are none.
    """

    objects_merged: int
    objects_split: int
    objects_missed: int
    objects_spurious: int


class Overlaps:
    """The intersection over union of every pair of a true and a predicted object of the same class that touch.

    Parameters
    ----------
    table : (true objects + 1, predicted objects + 1) sparse int64 array
        From :func:`contingency`.
        Of annotated pixels.
    classes : pair of int arrays, optional
        Class of every true and of every predicted object (index 0 is background); by default all are of one class.
    unknown : (predicted objects + 1,) int array, optional
        Pixels of every predicted object that are not annotated; by default none.

    Attributes
    ----------
    hidden : (predicted objects,) bool array
        Objects with more than half of their pixels not annotated: without a partner, they count as no error.
    """

    def __init__(
        self,
        table: scipy.sparse.csr_array,
        classes: tuple[NDArray[Any], NDArray[Any]] | None = None,
        unknown: NDArray[np.int64] | None = None,
    ) -> None:
        self.areas = np.asarray(table.sum(axis=1)).ravel()[1:], np.asarray(table.sum(axis=0)).ravel()[1:]
        self.hidden = np.zeros(len(self.areas[1]), bool) if unknown is None else unknown[1:] > self.areas[1]
        pairs = table.tocoo()
        touching = (pairs.row > 0) & (pairs.col > 0)
        if classes is not None:
            touching &= classes[0][pairs.row] == classes[1][pairs.col]
        self.true, self.predicted = pairs.row[touching] - 1, pairs.col[touching] - 1
        self.intersection = pairs.data[touching]
        self.union = self.areas[0][self.true] + self.areas[1][self.predicted] - self.intersection
        self.iou = self.intersection / self.union

    def match(self, threshold: float) -> Matching:
        """Match as many pairs as possible; ``threshold`` is at least 0.5.

        Then an object has two possible partners only if each is exactly half of it, and counts and mean are the same
        with either: so a hidden object must share more than half with its partner.
        """
        if threshold < 0.5:
            raise ValueError(f"the threshold must be at least 0.5, so that pairs are unique, got {threshold}")
        good = (self.iou >= threshold) & ((self.iou > 0.5) | ~self.hidden[self.predicted])
        shape = len(self.areas[0]), len(self.areas[1])
        graph = scipy.sparse.coo_array((good[good], (self.true[good], self.predicted[good])), shape=shape).tocsr()
        partner = maximum_bipartite_matching(graph, perm_type="column") if min(shape) else np.empty(0)
        matched = int((partner >= 0).sum())
        lone = np.delete(self.hidden, partner[partner >= 0].astype(np.intp))
        # Each true object in a pair has one overlap of at least 0.5, or two of exactly 0.5.
        best = np.zeros(shape[0])
        np.maximum.at(best, self.true[good], self.iou[good])
        return Matching(
            matched=matched,
            false_positive=int((~lone).sum()),
            false_negative=shape[0] - matched,
            mean_iou=float(best[partner >= 0].mean()) if matched else float("nan"),
        )

    def errors(self) -> ObjectErrors:
        """Count merged, split, missed and spurious objects; an object only meets those of its own class."""
        true_areas, predicted_areas = self.areas
        merged = np.bincount(self.predicted[2 * self.intersection > true_areas[self.true]]) > 1
        split = np.bincount(self.true[2 * self.intersection > predicted_areas[self.predicted]]) > 1
        found, filled = (
            np.bincount(of, weights=self.intersection, minlength=len(areas))
            for of, areas in zip((self.true, self.predicted), self.areas, strict=True)
        )
        return ObjectErrors(
            objects_merged=int(merged.sum()),
            objects_split=int(split.sum()),
            objects_missed=int((2 * found <= true_areas).sum()),
            objects_spurious=int(((2 * filled <= predicted_areas) & ~self.hidden).sum()),
        )

    def aggregated_jaccard(self) -> float:
        """Return the aggregated Jaccard index (Kumar et al. 2017, doi:10.1109/TMI.2017.2677499).

        Each true object is paired with the predicted one of the largest overlap (the first of equal ones); predicted
        objects without a pair count as error, unless they are hidden.
        """
        order = np.lexsort((self.predicted, -self.iou, self.true))
        true, first = np.unique(self.true[order], return_index=True)
        chosen = order[first]
        missed = np.delete(self.areas[0], true).sum()
        unused = np.delete(np.where(self.hidden, 0, self.areas[1]), np.unique(self.predicted[chosen])).sum()
        return _ratio(int(self.intersection[chosen].sum()), int(self.union[chosen].sum() + missed + unused))


@dataclass(frozen=True, kw_only=True)
class Partition:
    """How well an image is divided into objects, over the pixels of true objects.

    Attributes
    ----------
    adapted_rand_error
        1 - F1 of the pairs of pixels that are in one object (Arganda-Carreras et al. 2015,
        doi:10.3389/fnana.2015.00142).
    voi_split, voi_merge
        Variation of information in bits, by splitting and by merging true objects (Meila 2007,
        doi:10.1016/j.jmva.2006.11.013).
    """

    adapted_rand_error: float
    voi_split: float
    voi_merge: float


def partition(table: scipy.sparse.csr_array) -> Partition:
    """Compare two partitions by their :func:`contingency`; all NaN without a pixel of a true object."""
    inside = table.astype(np.float64)
    inside.data[: inside.indptr[1]] = 0  # the true background
    total = inside.sum()
    if total == 0:
        return Partition(adapted_rand_error=np.nan, voi_split=np.nan, voi_merge=np.nan)
    with np.errstate(invalid="ignore"):  # no pair of pixels at all: NaN
        rand_error, _, _ = adapted_rand_error(table=inside)
    pairs = inside.tocoo()
    true, found, share = (values[pairs.data > 0] for values in (pairs.row, pairs.col, pairs.data / total))
    # Not scikit-image's variation_of_information: its dot products add up in another order in two threads.
    split, merge = ((share * np.log2(np.bincount(of, share)[of] / share)).sum() for of in (true, found))
    return Partition(adapted_rand_error=float(rand_error), voi_split=float(split), voi_merge=float(merge))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")
