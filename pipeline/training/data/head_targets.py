"""What the heads of a network learn: maps of an annotated image, made from the ids of its objects.

Objects are those of the annotation: ids, touching or not, or components. An object that lies in several blocks has the
values of the whole object.

``distance``
    Euclidean distance in px of a pixel to the nearest one that is not of its object, divided by the largest of the
    object: 1 at its deepest pixel, 0 in the background. The border of the image is no border of an object; an object
    that fills the image is 1.
``boundary``
    1 for a pixel of an object whose 5 x 5 neighbourhood has a pixel of another object: at most one pixel is between
    them. 0 elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from models.base.heads import Head
from pipeline.base.arrays import SQUARE_PX, Array, LazyArray, bands, blocks

Box = tuple[slice, slice]

_LARGEST_PX = 2**24  # of a bounding box at full resolution: 0.5 GB for its distances
_STRIP_PX = 512  # rows of a large box that are read at once, after its reduction
_NEAR_PX = 2  # of another object, in rows or columns


def head_targets(objects: Array, heads: Iterable[Head], *, scratch: Path) -> list[Array]:
    """Return the (rows, columns) float32 map of each head; ``scratch`` is a folder that must exist as long as these.

    Parameters
    ----------
    objects : (rows, columns) int array
        Ids, 0 = background.
    """
    return [distances(objects, scratch=scratch) if head == "distance" else boundaries(objects) for head in heads]


def distances(
    objects: Array, *, scratch: Path, block_px: tuple[int, int] = SQUARE_PX, largest_px: int = _LARGEST_PX
) -> NDArray[np.float32]:
    """Return the normalized distance of every pixel to the border of its object, float32 in 0 to 1, in a scratch file.

    Each object is transformed once, in its bounding box; those that begin in one block are read together. Of an object
    whose box is larger than ``largest_px``, only every n-th row and column is transformed, so that it fits.
    """
    made: NDArray[np.float32] = np.memmap(scratch / "distances", np.float32, "w+", shape=tuple(objects.shape))
    together: dict[tuple[int, ...], dict[int, Box]] = {}
    for number, box in _boxes(objects, block_px).items():
        rows, columns = box
        is_large = _px(box) > math.prod(block_px)
        group = (number,) if is_large else (rows.start // block_px[0], columns.start // block_px[1])
        together.setdefault(group, {})[number] = box
    for boxes in together.values():
        number, box = next(iter(boxes.items()))
        if len(boxes) == 1 and _px(box) > largest_px:
            _fill_coarsely(made, objects, number, box, math.ceil(math.sqrt(_px(box) / largest_px)))
        else:
            _fill(made, objects, boxes)
    return made


def _px(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def boundaries(objects: Array) -> LazyArray:
    """Return where objects are near another one, float32 0 or 1, computed where it is read."""

    def read(rows: slice, columns: slice) -> NDArray[np.float32]:
        around = _widened((rows, columns), _NEAR_PX, objects.shape)
        ids = _numbered(objects[around])[0]
        return _is_near_another(ids)[_within((rows, columns), around)].astype(np.float32)

    return LazyArray(tuple(objects.shape), np.dtype(np.float32), read)


def _is_near_another(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pixels of objects have a pixel of another object in their neighbourhood."""
    side, none = 2 * _NEAR_PX + 1, ids.max() + 1
    highest = scipy.ndimage.maximum_filter(ids, size=side, mode="nearest")
    lowest = scipy.ndimage.minimum_filter(np.where(ids == 0, none, ids), size=side, mode="nearest")
    near: NDArray[np.bool_] = (ids > 0) & (highest != lowest)
    return near


def _boxes(objects: Array, block_px: tuple[int, int]) -> dict[int, Box]:
    """Return the bounding box of every object, by id."""
    boxes: dict[int, Box] = {}
    for region in blocks(tuple(objects.shape), block_px):
        ids, known = _numbered(objects[region])
        for index, part in enumerate(scipy.ndimage.find_objects(ids), start=1):
            moved = [slice(one.start + at.start, one.stop + at.start) for one, at in zip(part, region, strict=True)]
            other = boxes.get(int(known[index]), moved)
            boxes[int(known[index])] = _hull([moved, other])
    return boxes


def _numbered(ids: Any) -> tuple[NDArray[np.int64], Any]:
    """Number the objects of a region from 1; return also the id of each number."""
    numbers, _, known = relabel_sequential(np.asarray(ids).astype(np.int64))
    return numbers, known


def _hull(boxes: Iterable[Iterable[slice]]) -> Box:
    sides = zip(*boxes, strict=True)
    rows, columns = (slice(min(one.start for one in side), max(one.stop for one in side)) for side in sides)
    return rows, columns


def _widened(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    rows, columns = (
        slice(max(side.start - margin, 0), min(side.stop + margin, length))
        for side, length in zip(box, shape, strict=True)
    )
    return rows, columns


def _within(box: Box, window: Box) -> Box:
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, window, strict=True))
    return rows, columns


def _fill(made: NDArray[np.float32], objects: Array, boxes: dict[int, Box]) -> None:
    """Write the distances of objects that are near each other."""
    window = _hull(_widened(box, 1, objects.shape) for box in boxes.values())
    ids = np.asarray(objects[window])
    for number, box in boxes.items():
        around = _widened(box, 1, objects.shape)
        inside = ids[_within(around, window)] == number
        np.copyto(made[around], _depth(inside), where=inside, casting="same_kind")


def _fill_coarsely(made: NDArray[np.float32], objects: Array, number: int, box: Box, step: int) -> None:
    """Write the distances of one object, transformed at every ``step``-th row and column."""
    rows, columns = _widened(box, step, objects.shape)
    strips = [
        slice(rows.start + strip.start, rows.start + strip.stop)
        for strip in bands(rows.stop - rows.start, _STRIP_PX * step)
    ]
    depth = _depth(np.concatenate([np.asarray(objects[strip, columns])[::step, ::step] == number for strip in strips]))
    for index, strip in enumerate(strips):
        enlarged = depth[index * _STRIP_PX : (index + 1) * _STRIP_PX].repeat(step, axis=0).repeat(step, axis=1)
        inside = np.asarray(objects[strip, columns]) == number
        fitting = enlarged[: inside.shape[0], : inside.shape[1]]
        np.copyto(made[strip, columns], fitting, where=inside, casting="same_kind")


def _depth(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance to the nearest pixel outside, relative to the largest; 1 without a pixel outside."""
    if inside.all():
        return np.ones(inside.shape)
    depth: NDArray[np.float64] = scipy.ndimage.distance_transform_edt(inside)
    depth /= max(depth.max(), 1)
    return depth
