"""Measure the size, place and ellipse of every object of a mask, and trace its outline along pixel edges.

Results are exactly those of :func:`skimage.measure.regionprops` for the whole image, but blocks of the mask are read in
threads. Memory depends on the block, the number of threads and of objects, and the outlines in a row of blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import STRIP_PX, Array, bands, blocks
from pipeline.masks.measurements.runs import find_runs
from pipeline.masks.measurements.windows import Region, windows
from pipeline.runtime.parallel_blocks import in_order

_TOGETHER = 2**16  # objects whose sums are Python integers at a time
_LOW_BITS = 32

_CORNER = np.dtype([("id", "u4"), ("y", "i4"), ("x", "i4"), ("east", "?"), ("south", "?"), ("leaves_level", "?")])

Ring = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ObjectTable:
    """Measurements of n objects, by ascending id.

    Attributes
    ----------
    classes : (n,) uint8 array
        Class number of its pixels; the highest, if they have several (``masks.instances: partition``).
    centroids_px : (n, 2) float64 array
        Row and column; the centre of the first pixel of the slide is (0, 0).
    boxes_px : (n, 4) int64 array
        Top, left, bottom, right; half-open, as slices are.
    eccentricities : (n,) float64 array
        Of the ellipse with the same second moments: 0 is a circle, towards 1 it becomes a line.
    axes_px : (n, 2) float64 array
        Major and minor axis of this ellipse, from end to end.
    orientations_deg : (n,) float64 array
        Angle from downwards (along a column) to the major axis, counter-clockwise, in (-90, 90]; NaN of a circle.
    """

    ids: NDArray[np.int64]
    classes: NDArray[np.uint8]
    areas_px: NDArray[np.int64]
    centroids_px: NDArray[np.float64]
    boxes_px: NDArray[np.int64]
    eccentricities: NDArray[np.float64]
    axes_px: NDArray[np.float64]
    orientations_deg: NDArray[np.float64]


def measure_objects(instances: Array, classes: Array, *, block_px: tuple[int, int] = STRIP_PX) -> ObjectTable:
    """Measure every object of a slide.

    Parameters
    ----------
    instances : (rows, columns) array of uint32
        Object ids, 0 = background; the table has the ids that occur.
    classes : (rows, columns) array of uint8
        Class map.
    block_px : (rows, columns)
        Largest region read at once.

    Raises
    ------
    ValueError
        If an id is larger than the number of pixels.
    """
    totals = np.zeros(0, _totals_dtype())
    for sums in in_order(
        partial(_measure_block, instances, classes, region) for region in blocks(instances.shape, block_px)
    ):
        if sums is not None:
            totals = _grown(totals, int(sums.ids[-1]) + 1)
            _add(totals, sums)
    return _table(totals)


def _measure_block(instances: Array, classes: Array, region: Region) -> _Sums | None:
    """Read and sum up a block; None without objects."""
    numbers = np.asarray(instances[region])
    highest, (rows, columns) = int(numbers.max()), instances.shape
    if highest > rows * columns:
        raise ValueError(f"object ids go up to {highest} in {rows} x {columns} px, but must be numbered from 1")
    return _sum_up(numbers, np.asarray(classes[region]), region) if highest else None


def _totals_dtype() -> np.dtype[Any]:
    """Sums over the pixels of an object. Second moments exceed 64 bits: high and low half of rows, columns, both."""
    box = [(name, "i8") for name in ("top", "left", "bottom", "right")]
    sums = [("area", "i8"), ("row", "i8"), ("column", "i8"), ("high", "i8", (3,)), ("low", "i8", (3,))]
    return np.dtype([("class", "u1"), *box, *sums])


def _grown(totals: NDArray[Any], count: int) -> NDArray[Any]:
    if count <= len(totals):
        return totals
    larger = np.zeros(max(count, 2 * len(totals)), totals.dtype)
    larger["top"] = larger["left"] = np.iinfo(np.int64).max
    larger[: len(totals)] = totals
    return larger


@dataclass(frozen=True)
class _Sums:
    """What a block adds to the totals.

    Attributes
    ----------
    ids : (n,) array
        Objects in the block, ascending.
    values : dict of (n, ...) arrays
        By the names of the totals.
    """

    ids: NDArray[np.uint32]
    values: dict[str, NDArray[Any]]


def _sum_up(numbers: NDArray[np.uint32], classes: NDArray[np.uint8], region: Region) -> _Sums:
    """Sum up a block by id, run by run of equal ids in a row: the sums of a run have closed forms."""
    runs = find_runs(numbers)
    n, total = runs.lengths, runs.total
    row, column = np.divmod(runs.first, numbers.shape[1])
    row, column = row + region[0].start, column + region[1].start
    steps = n * (n - 1) // 2  # 0 + 1 + ... + (n - 1)
    columns = n * column + steps
    squares = n * column**2 + 2 * column * steps + steps * (2 * n - 1) // 3
    seconds = np.stack([n * row**2, squares, row * columns], axis=1)
    values = {
        "class": runs.of_pixels(classes.ravel()[runs.pixels], np.maximum),
        "area": runs.areas,
        "row": total(n * row),
        "column": total(columns),
        "high": total(seconds >> _LOW_BITS),
        "low": total(seconds & (2**_LOW_BITS - 1)),
        "top": total(row, np.minimum),
        "left": total(column, np.minimum),
        "bottom": total(row + 1, np.maximum),
        "right": total(column + n, np.maximum),
    }
    return _Sums(runs.ids, values)


def _add(totals: NDArray[Any], sums: _Sums) -> None:
    """Add the sums of a block to the totals by id."""
    ids = sums.ids
    for name, values in sums.values.items():
        own = totals[name]
        if name == "class":
            own[ids] = np.maximum(own[ids], values)
        elif name in ("top", "left"):
            own[ids] = np.minimum(own[ids], values)
        elif name in ("bottom", "right"):
            own[ids] = np.maximum(own[ids], values)
        else:
            own[ids] += values


def _table(totals: NDArray[Any]) -> ObjectTable:
    ids = np.flatnonzero(totals["area"])
    found = totals[ids]
    area = found["area"][:, None]
    parts = [np.zeros((4, 0)), *(_ellipse(found[part]) for part in bands(len(found), _TOGETHER))]
    eccentricities, major, minor, angles = np.concatenate(parts, axis=1)
    return ObjectTable(
        ids=ids,
        classes=found["class"],
        areas_px=found["area"],
        centroids_px=np.stack([found["row"], found["column"]], axis=1) / area,
        boxes_px=np.stack([found[side] for side in ("top", "left", "bottom", "right")], axis=1),
        eccentricities=eccentricities,
        axes_px=np.stack([major, minor], axis=1),
        orientations_deg=angles,
    )


def _ellipse(found: NDArray[Any]) -> NDArray[np.float64]:
    """Return eccentricity, both axes and orientation from the covariance of the pixel centres, as regionprops does.

    With its eigenvalues l1 >= l2, the eccentricity is sqrt(1 - l2 / l1), 0 for one pixel, and the axes are 4 sqrt(l1)
    and 4 sqrt(l2). Pixels are points, without the 1/12 of their own extent. Differences of the large sums are computed
    in integers of any size, so that no digits cancel far from the origin.
    """
    area, row, column = (found[name].astype(object) for name in ("area", "row", "column"))
    rows, columns, both = (found["high"].astype(object) * 2**_LOW_BITS + found["low"].astype(object)).T
    tall, wide, slant = area * rows - row * row, area * columns - column * column, area * both - row * column
    spread, taller = (tall + wide).astype(np.float64), (tall - wide).astype(np.float64)
    product = (tall * wide - slant * slant).astype(np.float64)
    slanted = (2 * slant).astype(np.float64)
    apart = np.hypot(taller, slanted)
    larger = (spread + apart) / 2  # l1 * area**2

    def ratio(value: NDArray[np.float64]) -> NDArray[np.float64]:
        of_larger: NDArray[np.float64] = np.divide(value, larger, out=np.zeros_like(value), where=larger > 0)
        return of_larger

    area_px = found["area"].astype(np.float64)
    return np.stack(
        [
            np.sqrt(np.minimum(ratio(apart), 1)),
            4 * np.sqrt(larger) / area_px,
            4 * np.sqrt(ratio(product)) / area_px,
            np.where(apart > 0, np.degrees(np.arctan2(slanted, taller)) / 2, np.nan),
        ]
    )


def trace_objects(
    instances: Array, table: ObjectTable, *, block_px: tuple[int, int] = STRIP_PX
) -> Iterator[tuple[int, list[Ring]]]:
    """Yield the outline of every object: its index in ``table``, and its rings.

    Objects are ordered by their last rows, then by their ids, and yielded as soon as the last row is read.

    A ring is a closed (points + 1, 2) int64 array of (x, y) = (column, row) of pixel corners: pixel (r, c) is the
    square from (c, r) to (c + 1, r + 1). The first ring is the exterior, with a positive area by the shoelace formula;
    the others are holes, with a negative one. No point lies within a straight side, no ring meets a point twice; two
    rings touch where pixels of the object meet by a corner alone. So the polygon is valid in the sense of OGC Simple
    Features.

    Parameters
    ----------
    instances : (rows, columns) array of uint32
        Object ids, 0 = background; each object is 4-connected.
    table : ObjectTable
        Of the same array.
    block_px : (rows, columns)
        Largest region read at once.
    """
    rows, columns = instances.shape
    read = in_order(partial(_read, instances, region) for region in blocks(instances.shape, block_px))
    corners = in_order(partial(_corners, *window) for window in windows(read, columns, rows, overlap=1))
    complete = in_order(
        partial(_outlines, some, table) for some in _complete(corners, instances.shape, block_px, table)
    )
    for outlines in complete:
        yield from outlines


def _read(instances: Array, region: Region) -> tuple[Region, list[NDArray[np.uint32]]]:
    return region, [np.asarray(instances[region])]


def _complete(
    corners: Iterable[NDArray[Any]], shape: tuple[int, ...], block_px: tuple[int, int], table: ObjectTable
) -> Iterator[NDArray[Any]]:
    """Yield all corners of the objects that end in each row of blocks."""
    last, across = ((length - 1) // side for length, side in zip(shape, block_px, strict=True))
    ends = np.zeros(int(table.ids.max(initial=0)) + 1, dtype=np.int64)
    ends[table.ids] = np.minimum(table.boxes_px[:, 2] // block_px[0], last)
    waiting: dict[int, list[NDArray[Any]]] = defaultdict(list)
    for number, found in enumerate(corners):
        own = ends[found["id"]]
        for end in np.unique(own):
            waiting[int(end)].append(found[own == end])
        row, column = divmod(number, across + 1)
        if column == across and row in waiting:
            yield np.concatenate(waiting.pop(row))


def _corners(top: int, left: int, planes: list[NDArray[np.uint32]]) -> NDArray[Any]:
    """Find the corners of outlines, between the four pixels around each point of the window.

    Both sides of a corner border on one of the four pixels: the only pixel of the object (convex), or a pixel outside
    between two inside (reflex). Two pixels inside that meet by a corner make two reflex corners, so that the ring goes
    on along the other inside pixel and separates the outside ones. The inside is to the right of the direction of
    travel, seen on the screen.
    """
    (window,) = planes
    north, south = window[:-1], window[1:]
    pixels = north[:, :-1], north[:, 1:], south[:, :-1], south[:, 1:]
    y, x = np.nonzero((pixels[0] != pixels[1]) | (pixels[0] != pixels[2]) | (pixels[0] != pixels[3]))
    around = [quadrant[y, x] for quadrant in pixels]
    found = []
    for quadrant, own in enumerate(around):
        beside, below, across = (around[quadrant ^ step] for step in (1, 2, 3))
        convex = (own > 0) & (own != beside) & (own != below) & (own != across)
        reflex = (beside > 0) & (beside == below) & (own != beside)
        for here, ids, is_convex in ((convex, own, True), (reflex, beside, False)):
            corners = np.empty(np.count_nonzero(here), dtype=_CORNER)
            corners["id"], corners["y"], corners["x"] = ids[here], y[here] + top, x[here] + left
            corners["east"], corners["south"] = quadrant & 1, quadrant >> 1
            corners["leaves_level"] = is_convex == (quadrant in {0, 3})
            found.append(corners)
    return np.concatenate(found)


def _outlines(corners: NDArray[Any], table: ObjectTable) -> list[tuple[int, list[Ring]]]:
    """Return the outlines of objects, given all of their corners."""
    corners = corners[np.lexsort((corners["east"], corners["x"], corners["y"], corners["id"]))]
    points = np.stack([corners["x"], corners["y"]], axis=1).astype(np.int64)
    order, starts = _rings(_following(corners))
    ids, first_rings = np.unique(corners["id"][order[starts]], return_index=True)
    closed = np.insert(points[order], np.append(starts[1:], len(order)), points[order[starts]], axis=0)
    bounds = [0, *(starts[1:] + np.arange(1, len(starts))).tolist(), len(closed)]
    rings = [closed[start:end] for start, end in pairwise(bounds)]
    indices = np.searchsorted(table.ids, ids)
    ends = np.append(first_rings[1:], len(starts))
    return [
        (int(indices[nth]), rings[first_rings[nth] : ends[nth]])
        for nth in np.lexsort((ids, table.boxes_px[indices, 2])).tolist()
    ]


def _rings(following: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the corners ring after ring, and where each ring starts, at its lowest corner; rings by that.

    The topmost corner of an object, which comes first, is on its exterior. Steps are doubled: what is known of 1, 2, 4,
    ... corners ahead gives that of twice as many (Wyllie 1979, list ranking).
    """
    lowest, ahead = np.arange(len(following)), following
    while (lowest != lowest[following]).any():
        lowest = np.minimum(lowest, lowest[ahead])
        ahead = ahead[ahead]
    ends = lowest == following  # the corner before the lowest one
    ahead = np.where(ends, np.arange(len(following)), following)
    left = np.where(ends, 0, 1)  # corners from each to the end of its ring
    while not ends[ahead].all():
        left += left[ahead]
        ahead = ahead[ahead]
    order = np.lexsort((-left, lowest))
    return order, np.flatnonzero(np.diff(lowest[order], prepend=-1))


def _following(corners: NDArray[Any]) -> NDArray[np.intp]:
    """Return the index of the corner after each; corners are sorted by id, y, x, east.

    Along a row of points, sides begin and end in turn, so the corners of an object in it are joined in pairs; a point
    with two corners ends one side and begins the next. The same holds along a column.
    """
    level = np.arange(len(corners)) ^ 1
    upright = np.empty_like(level)
    order = np.lexsort((corners["south"], corners["y"], corners["x"], corners["id"]))
    upright[order[0::2]], upright[order[1::2]] = order[1::2], order[0::2]
    return np.where(corners["leaves_level"], level, upright)
