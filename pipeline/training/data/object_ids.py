"""The objects of training images, for networks that detect them: their ids, sizes, and which of them a patch shows.

The ids are a map beside the weights (stage ``weigh``): float32, in which all up to 2²⁴ are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.arrays import Array, LazyArray, blocks
from pipeline.base.errors import SlideError

LEAST_VISIBLE = 0.25  # of the area of an object that is learned: less in a patch is background
_MOST = 2**24
_SMALL, _LARGE = 0.05, 1.0  # quantiles of the sides of objects


def number_objects(objects: Array, *, source: Path) -> LazyArray:
    """Return the ids of an image numbered from 1 without gaps, (rows, columns) float32; ``source`` is named in errors.

    Raises
    ------
    SlideError
        If there are more than float32 can number.
    """
    found = [np.unique(objects[region]) for region in blocks(tuple(objects.shape))]
    known = np.unique(np.concatenate([np.zeros(1, objects.dtype), *found]))
    if len(known) > _MOST:
        raise SlideError(f"{source}: has {len(known) - 1} objects, at most {_MOST} can be learned; cut the image")
    return LazyArray(
        tuple(objects.shape),
        np.dtype(np.float32),
        lambda *key: np.searchsorted(known, objects[key]).astype(np.float32),
    )


@dataclass(frozen=True, kw_only=True)
class ObjectSizes:
    """Area (px) and longer side (px) of the box of each object of an image; 0 for what is no object, as 0 itself."""

    areas: NDArray[np.int64]
    sides: NDArray[np.int64]


def measure_ids(ids: Array) -> ObjectSizes:
    """Measure the objects of a map of ids; read by block, so that an object can be larger than one."""
    boxes, areas = dict[int, list[int]](), dict[int, int]()
    for region in blocks(tuple(ids.shape)):
        part = np.asarray(ids[region]).astype(np.int64)
        present, local = np.unique(part, return_inverse=True)
        counts = np.bincount(local.ravel())
        for index, box in enumerate(scipy.ndimage.find_objects(local.reshape(part.shape) + 1)):
            number = int(present[index])
            top, left, bottom, right = _placed(box, region)
            known = boxes.get(number, [top, left, bottom, right])
            boxes[number] = [min(known[0], top), min(known[1], left), max(known[2], bottom), max(known[3], right)]
            areas[number] = areas.get(number, 0) + int(counts[index])
    made = ObjectSizes(areas=np.zeros(max(boxes) + 1, np.int64), sides=np.zeros(max(boxes) + 1, np.int64))
    for number, (top, left, bottom, right) in boxes.items():
        if number:
            made.areas[number], made.sides[number] = areas[number], max(bottom - top, right - left)
    return made


def _placed(box: tuple[slice, ...], region: tuple[slice, slice]) -> tuple[int, int, int, int]:
    rows, columns = box
    top, left = region[0].start, region[1].start
    return top + rows.start, left + columns.start, top + rows.stop, left + columns.stop


def describe_sides(images: Iterable[ObjectSizes]) -> dict[str, float] | None:
    """Return ``smallest_px`` and ``largest_px`` of the objects of all images; None without an object."""
    sides = np.concatenate([one.sides[one.areas > 0] for one in images])
    if not len(sides):
        return None
    return {"smallest_px": float(np.quantile(sides, _SMALL)), "largest_px": float(np.quantile(sides, _LARGE))}


def without_slivers(ids: Tensor, sizes: ObjectSizes, magnification: float) -> Tensor:
    """Return the ids of a patch without objects of which less than a quarter is visible.

    Parameters
    ----------
    ids : (..., P, P) float tensor
    sizes : ObjectSizes
        Of the image that the patch is from.
    magnification : float
        Pixels of the patch per pixel of the image.
    """
    present, inverse, counts = ids.long().unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    whole = torch.from_numpy(sizes.areas)[present]
    kept: Any = counts >= LEAST_VISIBLE * magnification * whole
    return torch.where(kept[inverse], ids, 0)
