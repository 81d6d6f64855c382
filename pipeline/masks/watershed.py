"""Split touching objects by a watershed on how deep inside its object, and how surely, each pixel lies.

The *depth* of a pixel is its Euclidean distance (px) to the nearest pixel outside its object, times the probability of
its class. Where the network sees the border between two nuclei, its probability dips and so does the depth; where all
probabilities are near 1, the outline is narrow between the nuclei, and the distance shows it. The markers are the
maxima of depth that are separated from every higher one by a *neck*: on the best path there, depth falls below a given
share of the maximum (its relative dynamics; an h-maximum of the logarithm). The share has no unit, so nuclei of 10 and
of 100 px are split alike. Flooding is that of :func:`skimage.segmentation.watershed`, from the deepest pixel of each.

A flood never leaves its 4-connected object, so objects are split apart from each other, and the result is that of the
whole image. Many of them are laid side by side in frames of background and split together: calls for each small object
would take ten times as long, and would not run in threads. The order of floods within each object stays the same.

References
----------
Beucher & Lantuejoul (1979), Use of watersheds in contour detection; Vincent & Soille (1991), doi:10.1109/34.87344;
Grimaud (1992), doi:10.1117/12.60650 (dynamics); Vincent (1993), doi:10.1109/83.217222 (reconstruction).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter
from scipy.ndimage import label as connected
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from pipeline.base.arrays import STRIP_PX, Array, LazyArray
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array

log = logging.getLogger(__name__)

LARGEST_PX = 2**24
_CHUNK_PX = (256, 512)  # windows of both grids are whole chunks
_TOGETHER_PX = 2**21  # split at a time
_ROW_PX = 2048  # of objects side by side

Foreground = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Box = tuple[slice, slice]


def split(inside: Foreground, probability: Floats, *, neck: float) -> NDArray[np.int32]:
    """Split one object.

    Parameters
    ----------
    inside : (rows, columns) bool array
        The object, 4-connected. Pixels beyond the array are outside.
    probability : (rows, columns) float array
        Of its class, 0 to 1.
    neck : float
        Between 0 and 1: two parts are split if depth between them falls below this share of the depth of the shallower
        one.

    Returns
    -------
    (rows, columns) int32 array
        Parts, 4-connected, numbered from 1 in the order of their maxima, row by row; 0 = outside.
    """
    ((parts, _),) = _split_together([inside], [probability], neck=neck)
    return parts


def _split_together(
    insides: Sequence[Foreground], probabilities: Sequence[Floats], *, neck: float
) -> list[tuple[NDArray[np.int32], int]]:
    """Split objects as :func:`split` does; return the parts of each, and how many there are."""
    corners, shape = _side_by_side([inside.shape for inside in insides])
    within, likely = np.zeros(shape, bool), np.zeros(shape)
    places = [_place(corner, inside) for corner, inside in zip(corners, insides, strict=True)]
    for place, inside, probability in zip(places, insides, probabilities, strict=True):
        within[place] = inside
        # At least 0.5: in a hole that was filled the class is unlikely, which would look like a neck.
        likely[place] = np.clip(probability.astype(np.float64), 0.5, 1)
    depths = distance_transform_edt(within) * likely
    with_neck = np.flatnonzero(_has_neck(depths, places, neck))
    found = [(inside.astype(np.int32), 1) for inside in insides]
    if len(with_neck):
        parts = _flood([depths[places[index]] for index in with_neck], neck)
        for index, part in zip(with_neck, parts, strict=True):
            found[index] = part
    return found


def _side_by_side(shapes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Place rectangles in rows, the highest first, each in a frame of one pixel.

    Returns
    -------
    list of (row, column)
        Where the first pixel of each rectangle lies.
    (rows, columns)
        Of the image that holds all.
    """
    width = max(_ROW_PX, *(columns + 2 for _, columns in shapes))
    corners = [(0, 0)] * len(shapes)
    top = left = height = 0
    for index in sorted(range(len(shapes)), key=lambda index: -shapes[index][0]):
        rows, columns = shapes[index]
        if left + columns + 2 > width:
            top, left, height = top + height, 0, 0
        corners[index] = (top + 1, left + 1)
        left, height = left + columns + 2, max(height, rows + 2)
    return corners, (top + height, width if top else left)


def _place(corner: tuple[int, int], pixels: NDArray[Any]) -> Box:
    return slice(corner[0], corner[0] + pixels.shape[0]), slice(corner[1], corner[1] + pixels.shape[1])


def _has_neck(depths: Floats, places: list[Box], neck: float) -> NDArray[np.bool_]:
    """Return of each object whether it may have one; most have none: all maxima are in one place above the neck."""
    owner, least = np.zeros(depths.shape, np.int32), np.empty(len(places))
    for index, place in enumerate(places):
        owner[place], least[index] = index, neck * depths[place].max()
    inside = depths > 0
    above = inside & (depths >= least[owner])
    numbers, count = connected(above, np.ones((3, 3)))
    owners = np.zeros(count + 1, np.int32)
    owners[numbers[above]] = owner[above]
    several = np.bincount(owners[1:], minlength=len(places)) > 1
    below = inside & ~above & (depths == maximum_filter(depths, 3))
    several[owner[below]] = True
    return several


def _flood(depths: list[Floats], neck: float) -> list[tuple[NDArray[np.int32], int]]:
    """Return the parts of objects, numbered from 1 in the order of their maxima, and how many each has."""
    corners, shape = _side_by_side([depth.shape for depth in depths])
    places = [_place(corner, depth) for corner, depth in zip(corners, depths, strict=True)]
    depth = np.zeros(shape)
    for place, own in zip(places, depths, strict=True):
        depth[place] = own
    seeds = _seeds(depth, neck)
    landscape, markers = -depth, np.zeros(shape, np.int32)
    markers.flat[seeds] = np.arange(1, len(seeds) + 1)
    # Seeds of one depth would be flooded in an arbitrary order; now they are flooded by number.
    landscape.flat[seeds] = np.arange(-len(seeds), 0) - depth.max()
    flooded = watershed(landscape, markers, mask=depth > 0)
    found = []
    for place in places:
        numbers, parts = np.unique(flooded[place], return_inverse=True)
        has_background = int(numbers[0] == 0)  # else parts are counted from 0
        parts = parts.reshape(flooded[place].shape) + 1 - has_background
        found.append((parts.astype(np.int32), len(numbers) - has_background))
    return found


def _seeds(depth: Floats, neck: float) -> NDArray[np.intp]:
    """Return the deepest pixel of each maximum that a neck separates from all higher ones, row by row.

    One pixel of each, as the pixels of a maximum may touch by corners only.
    """
    numbers = label(local_maxima(reconstruction(depth * neck, depth)))
    at = np.flatnonzero(numbers)
    at = at[np.argsort(-depth.flat[at], kind="stable")]
    _, first = np.unique(numbers.flat[at], return_index=True)
    return at[first]


def split_objects(
    objects: Array,
    table: NDArray[Any],
    probabilities: Array,
    *,
    neck: float,
    scratch: Path,
    window_px: tuple[int, int] = STRIP_PX,
) -> tuple[LazyArray, NDArray[np.int64]]:
    """Split every object as :func:`split` does; those in a box above 16 Mpx stay whole, and the log says so.

    Parameters
    ----------
    objects : (rows, columns) array of uint32
        Numbers of 4-connected objects, from 1; 0 = background.
    table : (objects,) structured array
        Class, first pixel and box of each, from :func:`pipeline.masks.components.unite_objects`.
    probabilities : (classes, rows, columns) float16 array
        Read by window.
    neck : float
        As for :func:`split`.
    scratch : Path
        A folder for the parts; it must exist as long as the result.
    window_px : (rows, columns)
        Largest region that is read for many objects at once.

    Returns
    -------
    (rows, columns) uint32 array
        Numbers of objects, those of the parts after those of the given objects.
    (objects + parts + 1,) int64 array
        First pixel of each number, row x columns + column; -1 for 0 and for objects that were split.
    """
    parts = scratch_array(scratch / "watershed.zarr", objects.shape, "uint32", chunks=_CHUNK_PX)
    firsts = [np.append(-1, table["first"])]
    count = len(table)
    for window, whole, found, more in in_order(
        partial(_split_window, objects, table, probabilities, neck, window, members)
        for window, members in _windows(table, window_px)
    ):
        if len(more):
            parts[window] = np.where(found > 0, found + np.uint32(count), np.asarray(parts[window]))
            firsts[0][whole + 1] = -1
            firsts.append(more)
            count += len(more)

    def read(*key: Any) -> NDArray[np.uint32]:
        found: NDArray[np.uint32] = np.asarray(parts[key])
        return np.where(found > 0, found, np.asarray(objects[key]))

    return LazyArray(objects.shape, np.dtype(np.uint32), read), np.concatenate(firsts)


def _split_window(
    objects: Array, table: NDArray[Any], probabilities: Array, neck: float, window: Box, members: NDArray[np.intp]
) -> tuple[Box, NDArray[np.intp], NDArray[np.uint32], NDArray[np.int64]]:
    """Split the objects that lie in a window.

    Returns
    -------
    window
        As given.
    (split,) array
        Indices of the objects that were split.
    (rows, columns) uint32 array
        Numbers of the parts, from 1; 0 elsewhere.
    (parts,) int64 array
        First pixel of each part in the whole image.
    """
    numbers = np.asarray(objects[window])
    found, firsts, split_ones = np.zeros_like(numbers), [np.empty(0, np.int64)], []
    count = 0
    for kind in np.unique(table["class"][members]):
        probability = np.asarray(probabilities[(int(kind), *window)])
        for some in _groups(table, members[table["class"][members] == kind]):
            boxes = [_box_in(table[index], window) for index in some]
            insides = [numbers[box] == index + 1 for box, index in zip(boxes, some, strict=True)]
            pieces = _split_together(insides, [probability[box] for box in boxes], neck=neck)
            for index, box, inside, (piece, more) in zip(some, boxes, insides, pieces, strict=True):
                if more > 1:
                    found[box][inside] = piece[inside] + count
                    firsts.append(_first_pixels(piece, table[index], objects.shape[1]))
                    split_ones.append(index)
                    count += more
    return window, np.array(split_ones, np.intp), found, np.concatenate(firsts)


def _groups(table: NDArray[Any], members: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Divide objects into groups whose boxes have not more than a few million pixels, if each has less."""
    some = table[members]
    area = np.cumsum((some["bottom"] - some["top"]) * (some["right"] - some["left"]))
    yield from np.split(members, np.flatnonzero(np.diff(area // _TOGETHER_PX)) + 1)


def _first_pixels(pieces: NDArray[np.int32], part: Any, columns: int) -> NDArray[np.int64]:
    """Return the first pixel of each piece in the whole image."""
    numbers, at = np.unique(pieces, return_index=True)
    row, column = np.divmod(at[numbers > 0], pieces.shape[1])
    first: NDArray[np.int64] = (row + part["top"]) * columns + column + part["left"]
    return first


def _windows(table: NDArray[Any], size: tuple[int, int]) -> Iterator[tuple[Box, NDArray[np.intp]]]:
    """Yield windows, each with the objects that lie in it; each object lies whole in one window.

    That is a window of a grid, else one of the same grid moved by half a window, else the box of the object.
    """
    begins = np.stack([table["top"], table["left"]], axis=1)
    ends = np.stack([table["bottom"], table["right"]], axis=1)
    rest = np.arange(len(table))
    for move in (np.zeros(2, np.int64), np.array(size) // 2):
        place = (begins[rest] + move) // size
        fits = (place == (ends[rest] - 1 + move) // size).all(axis=1)
        keys, group = np.unique(place[fits, 0] << 32 | place[fits, 1], return_inverse=True)
        members = np.split(rest[fits][np.argsort(group, kind="stable")], np.cumsum(np.bincount(group))[:-1])
        for key, some in zip(keys, members, strict=False):  # without keys there is still one empty group
            top, left = np.array([key >> 32, key & 0xFFFFFFFF]) * size - move
            yield (slice(max(0, top), top + size[0]), slice(max(0, left), left + size[1])), some
        rest = rest[~fits]
    too_large = np.prod(ends[rest] - begins[rest], axis=1) > LARGEST_PX
    if too_large.any():
        log.warning("%d objects are left whole: their boxes are larger than %d Mpx", too_large.sum(), LARGEST_PX / 1e6)
    for index in rest[~too_large]:
        (top, left), (bottom, right) = begins[index], ends[index]
        yield (slice(top, bottom), slice(left, right)), np.array([index])


def _box_in(part: Any, window: Box) -> Box:
    """Return the box of an object within a window."""
    top, left = (side.start for side in window)
    return slice(part["top"] - top, part["bottom"] - top), slice(part["left"] - left, part["right"] - left)
