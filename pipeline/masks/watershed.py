"""Split touching objects by a watershed on how deep inside its object, and how surely, each pixel lies.

The *depth* of a pixel is its Euclidean distance (px) to the nearest pixel outside its object, times the probability of
its class. Where the network sees the border between two nuclei, its probability dips and so does the depth; where all
probabilities are near 1, the outline is narrow between the nuclei, and the distance shows it. The markers are the
maxima of depth that are separated from every higher one by a *neck*: on the best path there, depth falls below a given
share of the maximum (its relative dynamics; an h-maximum of the logarithm). The share has no unit, so nuclei of 10 and
of 100 px are split alike. Flooding is that of :func:`skimage.segmentation.watershed`, from the deepest pixel of each.

A flood never leaves its 4-connected object, so objects are split one by one, and the result is that of the whole image.

References
----------
Beucher & Lantuejoul (1979), Use of watersheds in contour detection; Vincent & Soille (1991), doi:10.1109/34.87344;
Grimaud (1992), doi:10.1117/12.60650 (dynamics); Vincent (1993), doi:10.1109/83.217222 (reconstruction).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
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
from pipeline.runtime.scratch import scratch_array

log = logging.getLogger(__name__)

LARGEST_PX = 2**24
_CHUNK_PX = (256, 512)  # windows of both grids are whole chunks

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
    # At least 0.5: in a hole that was filled the class is unlikely, which would look like a neck.
    likely = _framed(np.clip(probability.astype(np.float64), 0.5, 1))
    within = _framed(inside)
    depth = distance_transform_edt(within) * likely
    seeds = _seeds(depth, neck)
    if len(seeds) == 1:
        return inside.astype(np.int32)
    landscape, markers = -depth, np.zeros(depth.shape, np.int32)
    markers.flat[seeds] = np.arange(1, len(seeds) + 1)
    # Seeds of one depth would be flooded in an arbitrary order; now they are flooded by number.
    landscape.flat[seeds] = np.arange(-len(seeds), 0) - depth.max()
    parts: NDArray[np.int32] = watershed(landscape, markers, mask=within)[1:-1, 1:-1]
    return parts


def _framed(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return an image with a frame of zeros, ten times faster than np.pad."""
    framed = np.zeros((pixels.shape[0] + 2, pixels.shape[1] + 2), pixels.dtype)
    framed[1:-1, 1:-1] = pixels
    return framed


def _seeds(depth: Floats, neck: float) -> NDArray[np.intp]:
    """Return the deepest pixel of each maximum that a neck separates from all higher ones, row by row.

    One pixel of each, as the pixels of a maximum may touch by corners only.
    """
    above, count = connected(depth >= neck * depth.max(), np.ones((3, 3)))
    maxima = (depth > 0) & (depth == maximum_filter(depth, 3))
    if count == 1 and (above[maxima] == 1).all():  # no neck below the deepest one, as in most objects
        return np.array([depth.argmax()])
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
    for window, members in _windows(table, window_px):
        numbers = np.asarray(objects[window])
        found = np.zeros_like(numbers)
        more: list[int] = []
        for kind in np.unique(table["class"][members]):
            probability = np.asarray(probabilities[(int(kind), *window)])
            for index in members[table["class"][members] == kind]:
                own = _box_in(table[index], window)
                inside = numbers[own] == index + 1
                pieces = split(inside, probability[own], neck=neck)
                if pieces.max() > 1:
                    found[own][inside] = pieces[inside] + (count + len(more))
                    more += _first_pixels(pieces, table[index], objects.shape[1])
                    firsts[0][index + 1] = -1
        if more:
            parts[window] = np.where(found > 0, found, np.asarray(parts[window]))
            firsts.append(np.array(more))
            count += len(more)

    def read(*key: Any) -> NDArray[np.uint32]:
        found: NDArray[np.uint32] = np.asarray(parts[key])
        return np.where(found > 0, found, np.asarray(objects[key]))

    return LazyArray(objects.shape, np.dtype(np.uint32), read), np.concatenate(firsts)


def _first_pixels(pieces: NDArray[np.int32], part: Any, columns: int) -> list[int]:
    """Return the first pixel of each piece in the whole image."""
    numbers, at = np.unique(pieces, return_index=True)
    row, column = np.divmod(at[numbers > 0], pieces.shape[1])
    first: list[int] = ((row + part["top"]) * columns + column + part["left"]).tolist()
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
