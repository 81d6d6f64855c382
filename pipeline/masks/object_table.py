"""Measure the size, place, shape and brightness of every object of a mask, and trace its outline along pixel edges.

Results are exactly those of :func:`skimage.measure.regionprops` for the whole image, but the mask is read block by
block: memory depends on a band of rows, the number of objects, and the outlines of those that cross the band.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import STRIP_PX, Array, bands, blocks
from pipeline.slides.planes import Pixels

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
        Class number of all its pixels.
    centroids_px : (n, 2) float64 array
        Row and column; the centre of the first pixel of the slide is (0, 0).
    boxes_px : (n, 4) int64 array
        Top, left, bottom, right; half-open, as slices are.
    eccentricities : (n,) float64 array
        Of the ellipse with the same second moments: 0 is a circle, towards 1 it becomes a line.
    intensities : (n, channels) float64 array
        Mean over the pixels of the object, in units of the slide.
    """

    ids: NDArray[np.int64]
    classes: NDArray[np.uint8]
    areas_px: NDArray[np.int64]
    centroids_px: NDArray[np.float64]
    boxes_px: NDArray[np.int64]
    eccentricities: NDArray[np.float64]
    intensities: NDArray[np.float64]


def measure_objects(
    instances: Array,
    classes: Array,
    read: Callable[[slice, slice], Pixels],
    *,
    channels: int,
    block_px: tuple[int, int] = STRIP_PX,
) -> ObjectTable:
    """Measure every object of a slide.

    Parameters
    ----------
    instances : (rows, columns) array of uint32
        Object ids, 0 = background; the table has the ids that occur.
    classes : (rows, columns) array of uint8
        Class map.
    read : callable
        Returns the (channel, row, column) intensities of a region; not called for regions without objects.
    channels : int
        Number of channels that ``read`` returns.
    block_px : (rows, columns)
        Largest region read at once.

    Raises
    ------
    ValueError
        If an id is larger than the number of pixels.
    """
    totals = np.zeros(0, _totals_dtype(channels))
    rows, columns = instances.shape
    for region in blocks(instances.shape, block_px):
        numbers = np.asarray(instances[region])
        highest = int(numbers.max())
        if highest > rows * columns:
            raise ValueError(f"object ids go up to {highest} in {rows} x {columns} px, but must be numbered from 1")
        if highest > 0:
            totals = _grown(totals, highest + 1)
            _add_block(totals, numbers, np.asarray(classes[region]), read(*region), region)
    return _table(totals)


def _totals_dtype(channels: int) -> np.dtype[Any]:
    """Sums over the pixels of an object. Second moments exceed 64 bits: high and low half of rows, columns, both."""
    box = [(name, "i8") for name in ("top", "left", "bottom", "right")]
    sums = [("area", "i8"), ("row", "i8"), ("column", "i8"), ("high", "i8", (3,)), ("low", "i8", (3,))]
    return np.dtype([("class", "u1"), *box, *sums, ("intensity", "f8", (channels,))])


def _grown(totals: NDArray[Any], count: int) -> NDArray[Any]:
    if count <= len(totals):
        return totals
    larger = np.zeros(max(count, 2 * len(totals)), totals.dtype)
    larger["top"] = larger["left"] = np.iinfo(np.int64).max
    larger[: len(totals)] = totals
    return larger


def _add_block(
    totals: NDArray[Any],
    numbers: NDArray[np.uint32],
    classes: NDArray[np.uint8],
    pixels: Pixels,
    region: tuple[slice, slice],
) -> None:
    """Add a block to the totals by id, run by run of equal ids in a row: the sums of a run have closed forms."""
    begins = np.ones(numbers.shape, dtype=bool)
    begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    first = np.flatnonzero(begins)
    n = np.diff(first, append=numbers.size)
    inside = numbers.ravel()[first] > 0
    for channel, plane in enumerate(pixels):
        exact = np.float64 if plane.dtype.kind == "f" else np.int64
        sums = np.add.reduceat(plane.ravel(), first, dtype=exact)
        np.add.at(totals["intensity"][:, channel], numbers.ravel()[first[inside]], sums[inside].astype(np.float64))
    first, n = first[inside], n[inside]
    ids = numbers.ravel()[first]
    row, column = np.divmod(first, numbers.shape[1])
    row, column = row + region[0].start, column + region[1].start
    totals["class"][ids] = classes.ravel()[first]
    steps = n * (n - 1) // 2  # 0 + 1 + ... + (n - 1)
    columns = n * column + steps
    np.add.at(totals["area"], ids, n)
    np.add.at(totals["row"], ids, n * row)
    np.add.at(totals["column"], ids, columns)
    squares = n * column**2 + 2 * column * steps + steps * (2 * n - 1) // 3
    for index, second in enumerate((n * row**2, squares, row * columns)):
        np.add.at(totals["high"][:, index], ids, second >> _LOW_BITS)
        np.add.at(totals["low"][:, index], ids, second & (2**_LOW_BITS - 1))
    np.minimum.at(totals["top"], ids, row)
    np.minimum.at(totals["left"], ids, column)
    np.maximum.at(totals["bottom"], ids, row + 1)
    np.maximum.at(totals["right"], ids, column + n)


def _table(totals: NDArray[Any]) -> ObjectTable:
    ids = np.flatnonzero(totals["area"])
    found = totals[ids]
    area = found["area"][:, None]
    parts = [found[part] for part in bands(len(found), _TOGETHER)]
    return ObjectTable(
        ids=ids,
        classes=found["class"],
        areas_px=found["area"],
        centroids_px=np.stack([found["row"], found["column"]], axis=1) / area,
        boxes_px=np.stack([found[side] for side in ("top", "left", "bottom", "right")], axis=1),
        eccentricities=np.concatenate([np.zeros(0), *map(_eccentricity, parts)]),
        intensities=found["intensity"] / area,
    )


def _eccentricity(found: NDArray[Any]) -> NDArray[np.float64]:
    """Return sqrt(1 - l2 / l1) of the eigenvalues l1 >= l2 of the covariance of the pixel centres, 0 for one pixel.

    As regionprops defines it: pixels are points, without the 1/12 of their own extent. Differences of the large sums
    are computed in integers of any size, so that no digits cancel far from the origin.
    """
    area, row, column = (found[name].astype(object) for name in ("area", "row", "column"))
    rows, columns, both = (found["high"].astype(object) * 2**_LOW_BITS + found["low"].astype(object)).T
    tall, wide, slant = area * rows - row * row, area * columns - column * column, area * both - row * column
    spread = (tall + wide).astype(np.float64)
    apart = np.hypot((tall - wide).astype(np.float64), (2 * slant).astype(np.float64))
    squared = np.divide(2 * apart, spread + apart, out=np.zeros_like(spread), where=spread > 0)
    eccentricity: NDArray[np.float64] = np.sqrt(np.minimum(squared, 1))
    return eccentricity


def trace_objects(
    instances: Array, table: ObjectTable, *, band_rows: int = STRIP_PX[0]
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
    band_rows : int
        Rows read at once.
    """
    rows, columns = instances.shape
    last = (rows - 1) // band_rows
    bottoms = np.zeros(int(table.ids.max(initial=0)) + 1, dtype=np.int64)
    bottoms[table.ids] = table.boxes_px[:, 2]
    waiting: dict[int, list[NDArray[Any]]] = defaultdict(list)
    above = np.zeros(columns + 2, dtype=np.uint32)
    for number, band in enumerate(bands(rows, band_rows)):
        height = band.stop - band.start
        window = np.zeros((height + 1 + (number == last), columns + 2), dtype=np.uint32)
        window[0] = above
        window[1 : height + 1, 1:-1] = instances[band, :]
        above = window[height].copy()
        corners = _corners(window, band.start)
        ends = np.minimum(bottoms[corners["id"]] // band_rows, last)
        for end in np.unique(ends):
            waiting[int(end)].append(corners[ends == end])
        if number in waiting:
            yield from _outlines(np.concatenate(waiting.pop(number)), table)


def _corners(window: NDArray[np.uint32], top: int) -> NDArray[Any]:
    """Find the corners of outlines, between the four pixels around each point of the window.

    Both sides of a corner border on one of the four pixels: the only pixel of the object (convex), or a pixel outside
    between two inside (reflex). Two pixels inside that meet by a corner make two reflex corners, so that the ring goes
    on along the other inside pixel and separates the outside ones. The inside is to the right of the direction of
    travel, seen on the screen.
    """
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
            corners["id"], corners["y"], corners["x"] = ids[here], y[here] + top, x[here]
            corners["east"], corners["south"] = quadrant & 1, quadrant >> 1
            corners["leaves_level"] = is_convex == (quadrant in {0, 3})
            found.append(corners)
    return np.concatenate(found)


def _outlines(corners: NDArray[Any], table: ObjectTable) -> Iterator[tuple[int, list[Ring]]]:
    """Yield the outlines of objects, given all of their corners."""
    corners = corners[np.lexsort((corners["east"], corners["x"], corners["y"], corners["id"]))]
    points = np.stack([corners["x"], corners["y"]], axis=1).astype(np.int64)
    following = _following(corners).tolist()
    ids, starts = np.unique(corners["id"], return_index=True)
    ends = np.append(starts[1:], len(corners))
    indices = np.searchsorted(table.ids, ids)
    seen = bytearray(len(corners))
    for nth in np.lexsort((ids, table.boxes_px[indices, 2])):
        rings = []
        for start in range(starts[nth], ends[nth]):  # the topmost corner, which comes first, is on the exterior
            if not seen[start]:
                path = [start]
                while not seen[path[-1]]:
                    seen[path[-1]] = True
                    path.append(following[path[-1]])
                rings.append(points[path])
        yield int(indices[nth]), rings


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
