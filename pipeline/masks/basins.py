"""Divide an image larger than memory into the basins of a landscape, and merge them to objects.

Every pixel drains to the lowest of itself and its four neighbours, of equally low ones to the first in the image. The
pixels that drain to one minimum are a *basin*. Two basins meet at their *pass*, the lowest pair of neighbours between
them; of equally high ones again the first. Passes are visited from the lowest up, and the two sides are merged or kept
apart for good by a rule on heights. This is a watershed by a minimum spanning forest (the "drop of water").

Since heights are integers and ties are decided by place, all this is one order of pixels, known everywhere without the
rest of the image. So basins are found block by block, a block needs two pixels around it, and the result is that of the
whole image. Memory depends on the block, the number of threads and the number of basins.

References
----------
Cousty et al. (2009), Watershed cuts, doi:10.1109/TPAMI.2008.173; Grimaud (1992), doi:10.1117/12.60650 (dynamics).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from pipeline.base.arrays import Array, WritableArray, blocks
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array

_BLOCK_PX = (512, 2048)
_CHUNK_PX = 512
_FRAME_PX = 2  # around a block: a pixel beside it drains by its own neighbours
_NORTH, _WEST, _HERE, _EAST, _SOUTH = range(5)
_NEIGHBOURS = ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))  # rows down and columns across
_SHUT, _ALWAYS = np.iinfo(np.int64).max, -1  # passes: between groups, and where one pixel drains to the other
_HEIGHT_SHIFT = 44  # of a pass: 16 bits of height, 42 of the place in the image, 2 of the side

HIGHEST = 2**16 - 2  # of a landscape

_BASIN = np.dtype([("class", "u1"), ("lowest", "i8"), ("area", "i8"), ("first", "i8")])
_BORDER = np.dtype([("one", "i8"), ("other", "i8"), ("pass", "i8"), ("length", "i8"), ("height", "i8")])

Region = tuple[slice, slice]
Integers = NDArray[np.integer[Any]]
Rule = Callable[[int, int], bool]


@dataclass(frozen=True, kw_only=True)
class Basins:
    """The basins of an image.

    Attributes
    ----------
    numbers : (rows, columns) uint32 array
        Basin of every pixel, from 1; 0 = outside.
    table : (n + 1,) structured array
        Of each basin: ``class``, height of its ``lowest`` pixel, ``area`` (px), and ``first`` (row x columns + column
        of the first pixel). Entry 0 stands for what is outside.
    borders : (m,) structured array
        Of each pair of neighbours: the numbers ``one`` and ``other``, the ``pass`` (ordered as passes are visited), the
        ``length`` of the border (pairs of pixels) and the sum of its ``height`` (of the higher pixel of each pair).
    """

    numbers: Array
    table: NDArray[Any]
    borders: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The basins of a block, numbered from 1, and the passes over its top and its left border, pixel by pixel."""

    region: Region
    numbers: NDArray[np.uint32]
    table: NDArray[Any]
    borders: NDArray[Any]
    above: NDArray[np.int64]
    beside: NDArray[np.int64]


def find_basins(
    heights: Array, classes: Array, *, everywhere: bool, scratch: Path, block_px: tuple[int, int] = _BLOCK_PX
) -> Basins:
    """Find the basins of a landscape.

    Parameters
    ----------
    heights : (rows, columns) array of integers
        From 0 to :data:`HIGHEST`.
    classes : (rows, columns) array of uint8
        Class map, 0 = background.
    everywhere : bool
        Whether the whole image drains, across borders of classes, and a basin has the class of one of its pixels that
        are not background, if there is one. Otherwise each class but background drains for itself.
    scratch : Path
        A folder for the numbers; it must exist as long as the result.
    block_px : (rows, columns)
        Largest block.
    """
    chunks = tuple(side if side % _CHUNK_PX else _CHUNK_PX for side in block_px)  # each in one block
    numbers = scratch_array(scratch / "basins.zarr", classes.shape, "uint32", chunks=(chunks[0], chunks[1]))
    find = partial(_find_in_block, heights, classes, everywhere)
    found = in_order(partial(find, region) for region in blocks(classes.shape, block_px))
    tables, borders = [np.zeros(1, _BASIN)], [np.empty(0, _BORDER)]
    for block in in_order(partial(_write, numbers, *one) for one in _numbered(found, classes.shape[1])):
        tables.append(block.table)
        borders.append(block.borders)
    return Basins(numbers=numbers, table=np.concatenate(tables), borders=np.concatenate(borders))


def _find_in_block(heights: Array, classes: Array, everywhere: bool, region: Region) -> _Block:
    around, missing = _around(region, classes.shape)
    height, kind = (np.pad(np.asarray(array[around]), missing) for array in (heights, classes))
    # Pixels drain within their group; 0 does not drain.
    group = np.pad(np.ones([side.stop - side.start for side in around], np.uint8), missing) if everywhere else kind
    flow = _flow(height, group)
    ground = _Ground(height[1:-1, 1:-1], group[1:-1, 1:-1], flow, region, classes.shape[1])
    own = (slice(1, -1), slice(1, -1))
    at, number, lowest = _drain(flow[own], ground.group[own] > 0)
    numbers = np.zeros(flow[own].shape, np.uint32)
    numbers.flat[at] = number
    table = np.zeros(len(lowest) + 1, _BASIN)
    table["lowest"][1:] = ground.height[own].ravel()[lowest]
    table["area"] = np.bincount(number, minlength=len(table))
    row, column = np.divmod(at, region[1].stop - region[1].start)
    # Of equal numbers, the last assignment holds.
    table["first"][number[::-1]] = ((row + region[0].start) * classes.shape[1] + column + region[1].start)[::-1]
    kinds = kind[2:-2, 2:-2].ravel()[at]
    table["class"][number[kinds > 0]] = kinds[kinds > 0]
    return _Block(
        region=region,
        numbers=numbers,
        table=table[1:],
        borders=ground.borders(numbers),
        above=ground.passes_into(0),
        beside=ground.passes_into(1),
    )


def _around(region: Region, shape: tuple[int, ...]) -> tuple[Region, list[tuple[int, int]]]:
    """Return a region with its frame, cut off at the edges of the image, and what is cut off."""
    around, missing = [], []
    for side, size in zip(region, shape, strict=True):
        low, high = side.start - _FRAME_PX, side.stop + _FRAME_PX
        around.append(slice(max(low, 0), min(high, size)))
        missing.append((max(-low, 0), max(high - size, 0)))
    return (around[0], around[1]), missing


def _flow(height: Integers, group: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return where each pixel but those of the outermost frame drains to: the lowest neighbour, or none."""
    own, here = (slice(1, -1), slice(1, -1)), height[1:-1, 1:-1]
    lowest, flow = np.full(here.shape, HIGHEST + 1, np.uint16), np.zeros(here.shape, np.uint8)
    for side, (down, across) in enumerate(_NEIGHBOURS):  # in the order of their places, so ties go to the first
        beside = slice(1 + down, height.shape[0] - 1 + down), slice(1 + across, height.shape[1] - 1 + across)
        lower = (height[beside] < lowest) & (group[beside] == group[own])
        np.copyto(lowest, height[beside], where=lower)
        np.copyto(flow, side, where=lower)
    return flow


def _drain(
    flow: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Find the basins of a block; what drains over its border ends in its last pixel before it.

    Returns
    -------
    (pixels,) array
        Indices of the pixels inside.
    (pixels,) array
        Basin of each, from 1, in the order of their lowest pixels.
    (basins,) array
        Indices of these.
    """
    flow = flow.copy()
    for edge, out in (((0,), _NORTH), ((-1,), _SOUTH), ((slice(None), 0), _WEST), ((slice(None), -1), _EAST)):
        flow[edge] = np.where(flow[edge] == out, _HERE, flow[edge])
    columns = flow.shape[1]
    at = np.flatnonzero(inside)
    place = np.empty(flow.size, np.intp)
    place[at] = np.arange(len(at))
    target = place[at + np.array([-columns, -1, 0, 1, columns])[flow.ravel()[at]]]
    target = root_of_each(target)
    is_lowest = target == np.arange(len(at))
    return at, np.cumsum(is_lowest)[target], at[is_lowest]


@dataclass(frozen=True)
class _Ground:
    """A block with a frame of one pixel: height, group (0 does not drain) and flow; ``columns`` are of the image."""

    height: Integers
    group: NDArray[np.uint8]
    flow: NDArray[np.uint8]
    region: Region
    columns: int

    def borders(self, numbers: NDArray[np.uint32]) -> NDArray[Any]:
        """Return the borders between the basins of the block."""
        height, group = (array[1:-1, 1:-1] for array in (self.height, self.group))
        found = []
        for axis in (0, 1):
            (one, other), (before, after) = _pairs(numbers, axis), _pairs(height, axis)
            row, column = np.nonzero((one != other) & np.equal(*_pairs(group, axis)) & (one > 0))
            place = row, column
            passes = self._pass(before[place], after[place], row, column, axis)
            found.append((one[place], other[place], passes))
        return _border_table(*map(np.concatenate, zip(*found, strict=True)))

    def passes_into(self, axis: int) -> NDArray[np.int64]:
        """Return the passes from the line before the block into its first line: shut, always open, or ordered."""
        lines = [(line, slice(1, -1)) if axis == 0 else (slice(1, -1), line) for line in (0, 1)]
        before, after = (self.height[line] for line in lines)
        flow, group = [self.flow[line] for line in lines], [self.group[line] for line in lines]
        along, beyond = np.arange(len(before)), np.full(len(before), -1)
        row, column = (beyond, along) if axis == 0 else (along, beyond)
        passes = self._pass(before, after, row, column, axis)
        passes[(flow[0] == (_SOUTH, _EAST)[axis]) | (flow[1] == (_NORTH, _WEST)[axis])] = _ALWAYS
        passes[(group[0] != group[1]) | (group[0] == 0)] = _SHUT
        return passes

    def _pass(self, before: Integers, after: Integers, row: Integers, column: Integers, axis: int) -> NDArray[np.int64]:
        """Order pairs of pixels by the higher one of each, then by the other one.

        ``row`` and ``column`` of the pixel ``before`` are counted from the first of the block.
        """
        is_after = after >= before  # of equal heights, the pixel that comes later counts as higher
        index = (row + self.region[0].start) * self.columns + column + self.region[1].start
        index += is_after * (self.columns, 1)[axis]
        side = np.where(is_after, axis, 3 - axis)  # of the lower one: north, west, east, south
        order: NDArray[np.int64] = np.maximum(before, after).astype(np.int64) << _HEIGHT_SHIFT | index << 2 | side
        return order


def _pairs(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two views: each pixel and the next one on an axis."""
    return (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])


def _border_table(one: Integers, other: Integers, passes: NDArray[np.int64]) -> NDArray[Any]:
    """Return a table with each pair of basins once, from the passes of pairs of pixels."""
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    order = np.lexsort((passes, high, low))
    low, high, passes = low[order], high[order], passes[order]
    start = np.flatnonzero((np.diff(low, prepend=-1) != 0) | (np.diff(high, prepend=-1) != 0))
    table = np.zeros(len(start), _BORDER)
    table["one"], table["other"], table["pass"] = low[start], high[start], passes[start]
    table["length"] = np.diff(start, append=len(low))
    heights = np.maximum(passes >> _HEIGHT_SHIFT, 0)  # none where a block cuts a basin: no border between parts
    table["height"] = np.add.reduceat(heights, start) if len(start) else 0
    return table


def _numbered(found: Iterable[_Block], columns: int) -> Iterator[tuple[_Block, int, list[NDArray[Any]]]]:
    """Yield each block, row by row, with the number of its first basin less 1, and the borders to blocks before it."""
    above, beside = np.zeros(columns, np.int64), np.empty(0, np.int64)
    count = 0
    for block in found:
        rows, across = block.region
        top, left, bottom, right = (
            np.where(line > 0, line.astype(np.int64) + count, 0)
            for line in (block.numbers[0], block.numbers[:, 0], block.numbers[-1], block.numbers[:, -1])
        )
        before = [(above[across], top, block.above)] if rows.start else []
        before += [(beside, left, block.beside)] if across.start else []
        lines = [[values[passes < _SHUT] for values in (one, other, passes)] for one, other, passes in before]
        yield block, count, [_border_table(*line) for line in lines]
        above[across], beside = bottom, right
        count += len(block.table)


def _write(numbers: WritableArray, block: _Block, count: int, before: list[NDArray[Any]]) -> _Block:
    """Write the numbers of a block, from ``count`` + 1; return table and borders in numbers of the image."""
    numbers[block.region] = np.where(block.numbers > 0, block.numbers + np.uint32(count), 0)
    borders = block.borders.copy()
    borders["one"] += count
    borders["other"] += count
    return replace(block, numbers=np.empty((0, 0), np.uint32), borders=np.concatenate([borders, *before]))


def merge_basins(basins: Basins, rule: Rule) -> NDArray[np.int64]:
    """Merge the basins on both sides of a pass where a rule says so, from the lowest pass up.

    Parameters
    ----------
    rule : callable
        Of the height of the pass, and of the lowest pixel of the shallower side, the higher one. A pass that is refused
        must not be granted to larger sides, whose lowest pixels are lower, nor at a higher pass between the same.

    Returns
    -------
    (n + 1,) int64 array
        For each basin the number of one basin of its part, the same for all of them; 0 for 0.
    """
    parent, lowest = list(range(len(basins.table))), basins.table["lowest"].tolist()

    def part_of(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for one, other, height in _spanning_forest(basins):
        low, high = part_of(one), part_of(other)
        if low != high:
            low, high = (low, high) if lowest[low] <= lowest[high] else (high, low)
            if rule(height, lowest[high]):
                parent[high] = low
    return root_of_each(np.array(parent))


def _spanning_forest(basins: Basins) -> Iterator[tuple[int, int, int]]:
    """Yield the passes of the minimum spanning forest in their order: two basins and a height.

    No other pass can merge anything: its two sides are connected by lower ones, and one of these was refused.
    """
    borders, count = basins.borders, len(basins.table)
    order = np.argsort(basins.borders["pass"], kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    graph = scipy.sparse.coo_array((rank, (borders["one"], borders["other"])), shape=(count, count))
    chosen = borders[order[np.sort(scipy.sparse.csgraph.minimum_spanning_tree(graph).data).astype(np.int64) - 1]]
    return zip(
        chosen["one"].tolist(), chosen["other"].tolist(), (chosen["pass"] >> _HEIGHT_SHIFT).tolist(), strict=True
    )


def merge_small(basins: Basins, parts: NDArray[np.int64], *, share: float) -> NDArray[np.int64]:
    """Merge each part that is small beside a neighbour into it.

    The neighbour is the one with the longest common border (of equal ones, the larger; then the one that comes first).
    Small means less than ``share`` of its area, both as they are before anything is merged.

    Parameters
    ----------
    parts : (n + 1,) int64 array
        From :func:`merge_basins`.
    share : float
        Between 0 and 1.

    Returns
    -------
    (n + 1,) int64 array
        As ``parts``.
    """
    area = np.bincount(parts, weights=basins.table["area"], minlength=len(parts))
    first = first_of_each(basins, parts)
    one, other = parts[basins.borders["one"]], parts[basins.borders["other"]]
    apart = one != other
    own, beside = np.concatenate([one[apart], other[apart]]), np.concatenate([other[apart], one[apart]])
    length = (
        scipy.sparse.coo_array((np.tile(basins.borders["length"][apart], 2), (own, beside)), shape=(len(parts),) * 2)
        .tocsr()
        .tocoo()
    )
    order = np.lexsort((first[length.col], -area[length.col], -length.data, length.row))
    own, at = np.unique(length.row[order], return_index=True)
    beside = length.col[order][at]
    target = np.arange(len(parts))
    small = area[own] < share * area[beside]  # so targets are larger and larger, and there is no circle
    target[own[small]] = beside[small]
    return root_of_each(target)[parts]


def first_of_each(basins: Basins, parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each part that is named in ``parts`` the first of its pixels in the image; else the largest number."""
    first = np.full(len(parts), np.iinfo(np.int64).max)
    np.minimum.at(first, parts, basins.table["first"])
    return first


def root_of_each(target: NDArray[Any]) -> NDArray[Any]:
    """Return where each index ends that is sent from target to target."""
    while not np.array_equal(further := target[target], target):
        target = further
    return target
