"""Find the boundaries of the classes of two maps, and compare them exactly and block by block, in threads.

The boundary of a class is its pixels that have a 4-neighbour of another class or lie at the edge of the image, as in
MONAI. A pixel without annotation belongs to no class, and is no neighbour of another class either.

The nearest boundary pixel is searched among the pixels around, nearest first; if there is none within a few pixels, in
the blocks that can hold it, nearest block first. So neither a distance map nor a list of all boundary pixels is ever in
memory. A distance is computed from the number of rows and columns between two pixels, wherever they are: in square
pixels, equal distances are equal bits.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.base.arrays import SQUARE_PX, Array, LazyArray, blocks
from pipeline.metrics.surface import Distances
from pipeline.runtime.parallel_blocks import map_and_merge
from pipeline.slides.labels import IGNORED

_CACHED_TREES = 12
_CACHED_CHUNKS = 64
_REACH_PX = 8  # searched pixel by pixel
_TOGETHER = 2**14  # pixels that are looked up at once
_READ_PX = (1024, 4096)  # read at a time, with a margin: the wider, the fewer pixels are read twice
_BEYOND = 255  # no class, as IGNORED; as the number after it is 0, it has no boundary
_NEIGHBOURS = (np.s_[:-2, 1:-1], np.s_[2:, 1:-1], np.s_[1:-1, :-2], np.s_[1:-1, 2:])

Points = NDArray[np.intp]
Offsets = tuple[NDArray[np.intp], NDArray[np.float64]]  # (n, 2) rows and columns, and n distances


def with_cache(labels: Array, chunk_px: tuple[int, int] = SQUARE_PX) -> LazyArray:
    """Return a (rows, columns) array in chunks that keeps those it read last: regions with margins overlap."""

    @lru_cache(maxsize=_CACHED_CHUNKS)
    def chunk(row: int, column: int) -> NDArray[Any]:
        return np.asarray(labels[row : row + chunk_px[0], column : column + chunk_px[1]])

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        pixels = np.empty((rows.stop - rows.start, columns.stop - columns.start), labels.dtype)
        for row in range(rows.start // chunk_px[0] * chunk_px[0], rows.stop, chunk_px[0]):
            for column in range(columns.start // chunk_px[1] * chunk_px[1], columns.stop, chunk_px[1]):
                top, left = max(row, rows.start), max(column, columns.start)
                part = chunk(row, column)[top - row : rows.stop - row, left - column : columns.stop - column]
                top, left = top - rows.start, left - columns.start
                pixels[top : top + part.shape[0], left : left + part.shape[1]] = part
        return pixels

    return LazyArray(labels.shape, labels.dtype, read)


def boundaries(labels: Array, region: tuple[slice, slice], margin_px: int = 0) -> NDArray[np.uint8]:
    """Return of each pixel of a region its class + 1 if it is on the boundary of that class, else 0.

    Parameters
    ----------
    labels : (rows, columns) uint8 array
        Class map, :data:`pipeline.slides.labels.IGNORED` where it is not known.
    margin_px : int
        Pixels to add on every side of the region; 0 beyond the image.
    """
    window, unknown = _with_margin(labels, region, margin_px + 1)
    own = window[1:-1, 1:-1]
    inside = np.ones(own.shape, dtype=bool)
    for side in _NEIGHBOURS:
        inside &= own == window[side] if unknown is None else (own == window[side]) | unknown[side]
    edges: NDArray[np.uint8] = np.where(inside, np.uint8(0), own + np.uint8(1))
    return edges


def surface_distances(
    truth: Array,
    predicted: Array,
    *,
    num_classes: int,
    spacing: tuple[float, float],
    block_px: tuple[int, int] = SQUARE_PX,
    read_px: tuple[int, int] = _READ_PX,
) -> list[tuple[Distances, Distances]]:
    """Return, of each class, the distances of each true boundary pixel to the predicted boundary, and the reverse.

    Parameters
    ----------
    truth, predicted : (rows, columns) uint8 class maps
        Both :data:`pipeline.slides.labels.IGNORED` where the truth is not known.
    spacing : (row, column)
        Size of a pixel; distances have its unit.
    block_px : (rows, columns)
        Of the blocks that are searched one by one.
    read_px : (rows, columns)
        Largest region whose pixels are compared at once.
    """
    both = [_boundaries_of(labels, num_classes, spacing, block_px) for labels in (truth, predicted)]
    offsets = _offsets(spacing)

    def measure(region: tuple[slice, slice]) -> list[tuple[Distances, Distances]]:
        edges = [boundaries(labels, region, _REACH_PX) for labels in (truth, predicted)]
        found = []
        for index, (true, other) in enumerate(zip(*both, strict=True)):
            here, there = (window == index + 1 for window in edges)
            to_predicted = _distances(here, there, region, other, offsets)
            to_truth = _distances(there, here, region, true, offsets)
            found.append((Distances.of(to_predicted), Distances.of(to_truth)))
        return found

    return map_and_merge(measure, blocks(truth.shape, read_px), merged_distances)


def merged_distances(parts: list[list[tuple[Distances, Distances]]]) -> list[tuple[Distances, Distances]]:
    """Add up the distances of blocks, or of the planes of a stack, by class."""
    of_classes = zip(*parts, strict=True)
    return [(Distances.merge([a for a, _ in some]), Distances.merge([b for _, b in some])) for some in of_classes]


def boundary_overlaps(
    truth: Array, predicted: Array, *, num_classes: int, width_px: int, read_px: tuple[int, int] = _READ_PX
) -> NDArray[np.int64]:
    """Return intersection and union, in pixels, of the true and the predicted inner band of each class.

    The band is what an erosion by ``width_px`` (8-connected) removes; pixels without annotation erode nothing and are
    in no band. Intersection / union is the boundary IoU of Cheng et al. (2021), doi:10.1109/CVPR46437.2021.01508.

    Returns
    -------
    (classes, 2) int64 array
    """

    def count(region: tuple[slice, slice]) -> NDArray[np.int64]:
        windows = [_with_margin(labels, region, width_px) for labels in (truth, predicted)]
        bands = (
            [_band(window == index, unknown, width_px) for window, unknown in windows] for index in range(num_classes)
        )
        return np.asarray([((first & second).sum(), (first | second).sum()) for first, second in bands])

    return map_and_merge(count, blocks(truth.shape, read_px), partial(np.sum, axis=0))


class _Boundary:
    """The boundary of one class, found block by block when it is needed.

    ``occupied`` are the blocks that it lies in, each with its lowest and highest row and column there.
    """

    def __init__(
        self,
        labels: Array,
        index: int,
        spacing: tuple[float, float],
        occupied: list[tuple[tuple[slice, slice], NDArray[np.intp]]],
    ) -> None:
        self._labels, self._index, self._spacing = labels, index, spacing
        self.regions = [region for region, _ in occupied]
        self.boxes = np.asarray([box for _, box in occupied]).reshape(-1, 2, 2)  # block, (low, high), axis
        self.tree = lru_cache(maxsize=_CACHED_TREES)(self._tree)

    def nearest(self, points: Points) -> NDArray[np.float64]:
        """Return the distance of each of at least one points to the boundary; infinite if there is none."""
        best = np.full(len(points), np.inf)
        bounds = self._bounds(points.min(axis=0), points.max(axis=0), self.boxes)
        for number in np.argsort(bounds, kind="stable"):
            if bounds[number] >= best.max():
                break
            closer = np.flatnonzero(self._bounds(points, points, self.boxes[number][None]) < best)
            if len(closer):
                others, tree = self.tree(int(number))
                nearest = others[tree.query(points[closer] * self._spacing)[1]]
                best[closer] = np.minimum(best[closer], _length(points[closer] - nearest, self._spacing))
        return best

    def _bounds(self, low: Points, high: Points, boxes: Points) -> NDArray[np.float64]:
        """Return what no pair of a point, between ``low`` and ``high``, and a pixel of a box is closer than."""
        return _length(np.maximum(0, np.maximum(boxes[:, 0] - high, low - boxes[:, 1])), self._spacing)

    def _tree(self, number: int) -> tuple[Points, cKDTree]:
        region = self.regions[number]
        points = np.argwhere(boundaries(self._labels, region) == self._index + 1) + _corner(region)
        # Most trees answer few points, the others being within reach: what is built faster is faster.
        return points, cKDTree(points * self._spacing, balanced_tree=False, compact_nodes=False)


def _boundaries_of(
    labels: Array, num_classes: int, spacing: tuple[float, float], block_px: tuple[int, int]
) -> list[_Boundary]:
    """Return the boundary of each class."""

    def boxes(region: tuple[slice, slice]) -> list[list[tuple[tuple[slice, slice], NDArray[np.intp]]]]:
        edges = boundaries(labels, region)
        found = (np.argwhere(edges == index + 1) + _corner(region) for index in range(num_classes))
        return [[(region, np.stack([at.min(axis=0), at.max(axis=0)]))] if len(at) else [] for at in found]

    occupied = map_and_merge(
        boxes, blocks(labels.shape, block_px), lambda parts: [[*chain(*some)] for some in zip(*parts, strict=True)]
    )
    return [_Boundary(labels, index, spacing, blocks_of_class) for index, blocks_of_class in enumerate(occupied)]


def _distances(
    here: NDArray[np.bool_],
    there: NDArray[np.bool_],
    region: tuple[slice, slice],
    boundary: _Boundary,
    offsets: Offsets,
) -> NDArray[np.float64]:
    """Return the distance of each boundary pixel ``here`` in a region to the other boundary, of which ``there`` is.

    Both have a margin of the reach.
    """
    own = np.zeros_like(here)
    inner = (slice(_REACH_PX, -_REACH_PX),) * 2
    own[inner] = here[inner]
    places = np.flatnonzero(own)
    distances = np.full(len(places), np.inf)
    left, at, others = np.arange(len(places)), places, there.ravel()
    steps, lengths = offsets
    shifts = steps[:, 0] * here.shape[1] + steps[:, 1]
    tried = 0
    while len(left) and tried < len(shifts):
        some = slice(tried, tried + max(1, _TOGETHER // len(left)))
        hits = others[at[:, None] + shifts[some]]
        nearest = hits.argmax(axis=1)  # the first hit
        found = hits[np.arange(len(left)), nearest]
        distances[left[found]] = lengths[some][nearest[found]]
        left, at, tried = left[~found], at[~found], some.stop
    if not len(left):
        return distances
    points = np.stack(np.divmod(at, here.shape[1]), axis=1) + _corner(region) - _REACH_PX
    distances[left] = boundary.nearest(points)
    return distances


def _offsets(spacing: tuple[float, float]) -> Offsets:
    """Return the rows and columns to each pixel within the reach, and its distance; nearest first."""
    steps = np.arange(-_REACH_PX, _REACH_PX + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    lengths = _length(offsets, spacing)
    order = np.argsort(lengths, kind="stable")
    near = order[lengths[order] <= _REACH_PX * min(spacing)]
    return offsets[near], lengths[near]


def _length(differences: Points, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Return the lengths of (rows, columns) in the unit of ``spacing``."""
    # The root of an integer if pixels are square, so that (3, 4) is as long as (0, 5) in pixels of any size.
    down, across = np.moveaxis(differences, -1, 0)
    length: NDArray[np.float64] = spacing[0] * np.sqrt(down**2 + (across * (spacing[1] / spacing[0])) ** 2)
    return length


def _corner(region: tuple[slice, slice]) -> Points:
    return np.asarray([side.start for side in region])


def _with_margin(
    labels: Array, region: tuple[slice, slice], margin_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Return the classes of a region and of a margin around it, and which pixels are not annotated (None: no pixel).

    Beyond the image, the classes are those of no class.
    """
    around, missing = [], []
    for side, length in zip(region, labels.shape, strict=True):
        low, high = side.start - margin_px, side.stop + margin_px
        around.append(slice(max(low, 0), min(high, length)))
        missing.append((max(-low, 0), max(high - length, 0)))
    pixels = np.asarray(labels[tuple(around)])
    unknown = pixels == IGNORED
    return np.pad(pixels, missing, constant_values=_BEYOND), np.pad(unknown, missing) if unknown.any() else None


def _band(mask: NDArray[np.bool_], unknown: NDArray[np.bool_] | None, width_px: int) -> NDArray[np.bool_]:
    """Return the inner band of a class, without the margin of ``width_px``."""
    filled = mask if unknown is None else mask | unknown
    eroded = scipy.ndimage.minimum_filter(filled.view(np.uint8), size=2 * width_px + 1)
    own = (slice(width_px, -width_px), slice(width_px, -width_px))
    band: NDArray[np.bool_] = mask[own] & (eroded[own] == 0)
    return band
