"""The mask of detected objects: class map, object ids, and the score of each object.

Where objects overlap, a pixel belongs to the one with the highest score. What is left of an object is its largest
connected piece. Blocks are painted in threads; ids are those of the whole slide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from skimage.morphology import remove_small_holes

from models.base.detection import Detection
from pipeline.base.arrays import SQUARE_PX, Array, blocks, lookup
from pipeline.masks.components import find_parts, unite_objects
from pipeline.masks.instances import areas_px
from pipeline.prediction.detections.merge import merged
from pipeline.prediction.detections.stored import read_objects
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array
from pipeline.settings.masks import MaskConfig


class DetectedMask(NamedTuple):
    """``classes`` (uint8) and ``instances`` (uint32, from 1 in the order of first pixels); scores by id less 1."""

    images: dict[str, Array]
    scores: NDArray[np.float32]


def mask_of_objects(
    group: zarr.Group, config: MaskConfig, *, pixel_um2: float | None, inside: Array | None = None, scratch: Path
) -> DetectedMask:
    """Return the mask of the objects of an open prediction; the parameters are those of :func:`detected_mask`."""
    shape: tuple[int, int] = group["labels"].shape  # type: ignore[union-attr, assignment]
    smallest_px, largest_px = areas_px(config, pixel_um2)
    found = read_objects(group)
    return detected_mask(
        found, shape, min_object_px=smallest_px, max_hole_px=largest_px, inside=inside, scratch=scratch
    )


def detected_mask(
    found: Sequence[Detection],
    shape: tuple[int, int],
    *,
    min_object_px: float,
    max_hole_px: float,
    inside: Array | None = None,
    scratch: Path,
    block_px: tuple[int, int] = SQUARE_PX,
) -> DetectedMask:
    """Merge the objects of all windows, and paint them.

    Parameters
    ----------
    found : sequence of Detection
        On the slide.
    shape : (rows, columns)
        Of the slide.
    min_object_px : float
        An object of which fewer pixels are left is background.
    max_hole_px : float
        Holes of an object of at most this many pixels are filled before it is painted.
    inside : (1, rows, columns) array or None
        Where it is 0, there is no object.
    scratch : Path
        A folder for the ids; it must exist as long as the result.
    block_px : (rows, columns)
        Largest block, in whole chunks of the scratch array.
    """
    objects = merged(found)
    if max_hole_px:
        objects = [one._replace(mask=_filled(one.mask, max_hole_px)) for one in objects]
    painted = scratch_array(scratch / "detected.zarr", shape, "uint32", chunks=SQUARE_PX)
    for region, pixels in in_order(
        partial(_paint, objects, numbers, region, inside) for region, numbers in _by_block(objects, shape, block_px)
    ):
        painted[region] = pixels
    folder = scratch / "pieces"
    folder.mkdir(parents=True)
    parts = find_parts(painted, scratch=folder)
    pieces, table = unite_objects(parts, parts.table["class"])
    largest = _largest_pieces(table["class"], table["area"])
    largest = largest[table["area"][largest] >= max(min_object_px, 1)]
    ids = np.zeros(len(table) + 1, np.uint32)  # of pieces, counted from 1
    ids[largest + 1] = np.arange(1, len(largest) + 1)
    numbers = table["class"][largest].astype(np.int64) - 1
    classes = np.array([0, *(objects[number].number for number in numbers)], np.uint8)
    scores = np.array([objects[number].score for number in numbers], np.float32)
    of_parts = ids[pieces]
    images: dict[str, Array] = {
        "classes": lookup(parts.numbers, classes[of_parts]),
        "instances": lookup(parts.numbers, of_parts),
    }
    return DetectedMask(images, scores)


def _filled(mask: NDArray[np.bool_], max_hole_px: float) -> NDArray[np.bool_]:
    wide = remove_small_holes(np.pad(mask, 1), max_size=int(max_hole_px))
    filled: NDArray[np.bool_] = wide[1:-1, 1:-1]
    return filled


def _by_block(
    objects: Sequence[Detection], shape: tuple[int, int], block_px: tuple[int, int]
) -> list[tuple[tuple[slice, slice], list[int]]]:
    """Return the blocks that have objects, with the indices of these, ascending."""
    inside = defaultdict(list)
    for index, one in enumerate(objects):
        rows, columns = (
            range(part.start // side, (part.stop - 1) // side + 1)
            for part, side in zip(one.slices, block_px, strict=True)
        )
        for row in rows:
            for column in columns:
                inside[row, column].append(index)
    places = (
        (region, (region[0].start // block_px[0], region[1].start // block_px[1])) for region in blocks(shape, block_px)
    )
    return [(region, inside[place]) for region, place in places if place in inside]


def _paint(
    objects: Sequence[Detection], numbers: Sequence[int], region: tuple[slice, slice], inside: Array | None
) -> tuple[tuple[slice, slice], NDArray[np.uint32]]:
    """Paint a block with the objects of these indices, which are by falling score: index and 1."""
    rows, columns = region
    pixels = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint32)
    for number in reversed(numbers):
        one = objects[number].moved(-rows.start, -columns.start).within(pixels.shape)
        if one is not None:
            pixels[one.slices][one.mask] = number + 1
    if inside is not None:
        pixels[np.asarray(inside[0, rows, columns]) == 0] = 0
    return region, pixels


def _largest_pieces(owners: NDArray[np.uint32], areas: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the largest piece of each owner, ascending; the first of equally large ones."""
    order = np.lexsort((np.arange(len(owners)), -areas, owners))
    firsts = np.diff(owners[order].astype(np.int64), prepend=-1) != 0
    return np.sort(order[firsts])
