"""One object for what several windows found: of two masks that overlap much, the one with the higher score stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from models.base.detection import Detection

SAME_IOU = 0.5  # of masks: two objects are one from here on


def merged(found: Sequence[Detection]) -> list[Detection]:
    """Return the objects without repetitions, by falling score; equal scores by place.

    An object is left out if its mask has an intersection over union of at least 0.5 with one that stays, of any class.

    Parameters
    ----------
    found : sequence of Detection
        On the slide; the order does not matter.
    """
    ordered = sorted(found, key=lambda one: (-one.score, one.top, one.left, one.number, one.mask.shape, one.mask.sum()))
    better = defaultdict(list)
    for first, second in _overlapping(ordered).tolist():
        better[second].append(first)
    stays = np.ones(len(ordered), bool)
    for number in range(len(ordered)):
        stays[number] = not any(
            stays[other] and mask_iou(ordered[other], ordered[number]) >= SAME_IOU for other in better[number]
        )
    return [one for one, is_kept in zip(ordered, stays, strict=True) if is_kept]


def mask_iou(one: Detection, other: Detection) -> float:
    """Return the intersection over union of two masks."""
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one.slices, other.slices, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return 0.0
    here, there = (
        part.mask[rows.start - part.top : rows.stop - part.top, columns.start - part.left : columns.stop - part.left]
        for part in (one, other)
    )
    shared = int(np.count_nonzero(here & there))
    return shared / (int(np.count_nonzero(one.mask)) + int(np.count_nonzero(other.mask)) - shared)


def _overlapping(objects: Sequence[Detection]) -> NDArray[np.int64]:
    """Return the pairs of objects whose boxes overlap, the first before the second, ordered, (pairs, 2)."""
    if not objects:
        return np.empty((0, 2), np.int64)
    rows, columns = zip(*(one.slices for one in objects), strict=True)
    boxes = shapely.box(
        [part.start for part in columns],
        [part.start for part in rows],
        [part.stop for part in columns],
        [part.stop for part in rows],
    )
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    pairs: NDArray[np.int64] = np.stack([first, second], axis=1)[first < second]
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
