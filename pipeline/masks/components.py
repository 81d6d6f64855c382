"""Find the connected components of a class map larger than memory, and clean them by area.

Blocks are labelled in threads, background included. A component has one part in each block that it lies in. Which parts
touch is enough to unite them, to remove small objects and to fill holes: pixels are labelled once, and every result is
that of the whole image. Memory depends on the block, the number of threads and the number of components.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import skimage.measure
from numpy.typing import NDArray

from pipeline.base.arrays import STRIP_PX, Array, LazyArray, WritableArray, blocks, lookup
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array

_CHUNK_PX = 512

PartTable = NDArray[Any]
Pairs = NDArray[np.int64]


def _table(count: int, dtype: np.dtype[Any]) -> PartTable:
    """Return the table of so many parts, whose class is a number of this type."""
    of_pixels = ((name, "i8") for name in ("area", "first", "top", "left", "bottom", "right"))
    return np.zeros(count, np.dtype([("class", dtype), *of_pixels], align=True))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The components of every block of an image.

    Attributes
    ----------
    numbers : (rows, columns) uint32 array
        The part of every pixel, counted from 0.
    table : (n,) structured array
        Of each part: ``class``, ``area`` (px), ``first`` (row x columns + column of the first pixel), and the box from
        ``top``, ``left`` to ``bottom``, ``right`` (half-open).
    touching : (m, 2) int64 array
        Parts with pixels side by side; those of one class belong to one component.
    """

    numbers: Array
    table: PartTable
    touching: Pairs

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of the image."""
        return self.numbers.shape


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The parts of a block, numbered from 0; see :class:`Parts`."""

    region: tuple[slice, slice]
    numbers: NDArray[np.uint32]
    table: PartTable
    touching: Pairs


def find_parts(labels: Array, *, scratch: Path, block_px: tuple[int, int] = STRIP_PX) -> Parts:
    """Label the 4-connected components of equal class in each block.

    Parameters
    ----------
    labels : (rows, columns) array of uint8 or uint32
        Class map, 0 = background; or object ids, which take the place of classes.
    scratch : Path
        A folder for the numbers; it must exist as long as the result.
    block_px : (rows, columns)
        Largest block.
    """
    # A chunk must not be in two blocks, which are written at the same time.
    chunks = tuple(side if side % _CHUNK_PX else _CHUNK_PX for side in block_px)
    numbers = scratch_array(scratch / "parts.zarr", labels.shape, "uint32", chunks=(chunks[0], chunks[1]))
    found = in_order(partial(_find_in_block, labels, region) for region in blocks(labels.shape, block_px))
    tables, touching = [_table(0, labels.dtype)], [np.empty((0, 2), np.int64)]
    for block in in_order(partial(_write, numbers, *one) for one in _numbered(found, labels.shape[1])):
        tables.append(block.table)
        touching.append(block.touching)
    return Parts(numbers=numbers, table=np.concatenate(tables), touching=np.concatenate(touching))


def _find_in_block(labels: Array, region: tuple[slice, slice]) -> _Block:
    classes = np.asarray(labels[region])
    numbers = (skimage.measure.label(classes, background=-1, connectivity=1) - 1).astype(np.uint32)
    touching = [_pairs(numbers[:, :-1], numbers[:, 1:]), _pairs(numbers[:-1], numbers[1:])]
    table = _table_of(numbers, classes, region, labels.shape[1])
    return _Block(region=region, numbers=numbers, table=table, touching=_once(touching))


def _numbered(found: Iterable[_Block], columns: int) -> Iterator[tuple[_Block, int, list[Pairs]]]:
    """Yield each block, row by row, with the number of its first part, and the pairs across its top and left border."""
    above, beside = np.full(columns, -1), np.empty(0, np.int64)
    count = 0
    for block in found:
        across = block.region[1]
        top, left = block.numbers[0].astype(np.int64) + count, block.numbers[:, 0].astype(np.int64) + count
        pairs = [_pairs(above[across], top)] if block.region[0].start else []
        pairs += [_pairs(beside, left)] if across.start else []
        above[across] = block.numbers[-1].astype(np.int64) + count
        beside = block.numbers[:, -1].astype(np.int64) + count
        yield block, count, pairs
        count += len(block.table)


def _write(numbers: WritableArray, block: _Block, first: int, pairs: list[Pairs]) -> _Block:
    """Write the numbers of a block, from ``first``; return its table and all pairs in the numbers of the image."""
    numbers[block.region] = block.numbers + np.uint32(first)
    touching = _once([block.touching + first, *pairs])
    return replace(block, numbers=np.empty((0, 0), np.uint32), touching=touching)


def _pairs(before: NDArray[Any], after: NDArray[Any]) -> Pairs:
    """Return the different numbers side by side, the lower one first."""
    here = before != after
    one, other = before[here].astype(np.int64), after[here].astype(np.int64)
    return np.stack([np.minimum(one, other), np.maximum(one, other)], axis=1)


def _once(pairs: list[Pairs]) -> Pairs:
    """Return each pair once."""
    low, high = np.concatenate(pairs).T
    found = np.sort(low << 32 | high)  # np.unique hashes first, which takes ten times as long
    found = found[np.diff(found, prepend=-1) != 0]
    return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1)


def _table_of(
    numbers: NDArray[np.uint32], classes: NDArray[Any], region: tuple[slice, slice], columns: int
) -> PartTable:
    """Return the table of the parts of a block, numbered from 0 in the order of their first pixels."""
    begins = np.ones(numbers.shape, dtype=bool)
    begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    start = np.flatnonzero(begins)  # of runs of equal numbers in a row
    length = np.diff(start, append=numbers.size)
    number = numbers.ravel()[start]
    row, column = np.divmod(start, numbers.shape[1])
    row, column = row + region[0].start, column + region[1].start
    first = np.empty(number.max() + 1, dtype=np.int64)  # run of each part
    first[number[::-1]] = np.arange(len(number))[::-1]  # of equal numbers, the last assignment holds
    table = _table(len(first), classes.dtype)
    table["class"] = classes.ravel()[start[first]]
    table["area"] = np.bincount(number, weights=length)
    table["first"] = row[first] * columns + column[first]
    table["top"], table["left"] = row[first], np.iinfo(np.int64).max
    np.minimum.at(table["left"], number, column)
    np.maximum.at(table["bottom"], number, row + 1)
    np.maximum.at(table["right"], number, column + length)
    return table


def find_objects(labels: Array, *, scratch: Path, block_px: tuple[int, int] = STRIP_PX) -> tuple[LazyArray, int]:
    """Number the 4-connected components of each class but background, in the order of their first pixels.

    The parameters are those of :func:`find_parts`.

    Returns
    -------
    (rows, columns) uint32 array
        Object ids, 0 = background.
    int
        Number of objects.
    """
    parts = find_parts(labels, scratch=scratch, block_px=block_px)
    numbers, objects = unite_objects(parts, parts.table["class"])
    return lookup(parts.numbers, numbers.astype(np.uint32)), len(objects)


def clean_classes(parts: Parts, *, min_object_px: float, max_hole_px: float) -> NDArray[np.uint8]:
    """Return the class of every part after removing small objects and then filling small holes.

    Parameters
    ----------
    min_object_px : float
        A component with fewer pixels, of any class but background, becomes background.
    max_hole_px : float
        A component of the resulting background with at most this many pixels becomes the class around it, if that is
        one class on all sides and the component does not reach the edge of the image.

    Returns
    -------
    (parts,) uint8 array
    """
    classes = parts.table["class"].copy()
    whole, areas = _components(parts, classes)
    classes[(classes > 0) & (areas[whole] < min_object_px)] = 0
    whole, areas = _components(parts, classes)  # what was removed is part of a larger background
    rows, columns = parts.shape
    at_edge = (parts.table["top"] == 0) | (parts.table["left"] == 0)
    at_edge |= (parts.table["bottom"] == rows) | (parts.table["right"] == columns)
    enclosed = areas <= max_hole_px
    enclosed[whole[at_edge]] = False
    lowest, highest = np.full(len(areas), 255, np.uint8), np.zeros(len(areas), np.uint8)
    for inside, outside in (parts.touching.T, parts.touching.T[::-1]):
        other = whole[inside] != whole[outside]
        np.minimum.at(lowest, whole[inside[other]], classes[outside[other]])
        np.maximum.at(highest, whole[inside[other]], classes[outside[other]])
    hole = (classes == 0) & (enclosed & (lowest == highest))[whole]
    return np.where(hole, highest[whole], classes)


def unite_objects(parts: Parts, classes: NDArray[Any]) -> tuple[NDArray[np.int64], PartTable]:
    """Unite the touching parts of one class to objects.

    Parameters
    ----------
    classes : (parts,) uint8 or uint32 array
        0 = background.

    Returns
    -------
    (parts,) int64 array
        Object of each part, numbered from 1 in the order of first pixels; 0 = background.
    (objects,) structured array
        As ``Parts.table``.
    """
    whole, areas = _components(parts, classes)
    table = _table(len(areas), classes.dtype)
    table["area"] = areas
    table["class"][whole] = classes
    for name in ("first", "top", "left"):
        table[name] = np.iinfo(np.int64).max
        np.minimum.at(table[name], whole, parts.table[name])
    for name in ("bottom", "right"):
        np.maximum.at(table[name], whole, parts.table[name])
    objects = np.flatnonzero(table["class"])
    objects = objects[np.argsort(table["first"][objects])]
    number = np.zeros(len(table), np.int64)
    number[objects] = np.arange(1, len(objects) + 1)
    return number[whole], table[objects]


def _components(parts: Parts, classes: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Unite the touching parts of one class; return the component of each part, and the area of each component."""
    one, other = parts.touching[classes[parts.touching[:, 0]] == classes[parts.touching[:, 1]]].T
    graph = scipy.sparse.coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(classes),) * 2)
    _, whole = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return whole, np.bincount(whole, weights=parts.table["area"]).astype(np.int64)
