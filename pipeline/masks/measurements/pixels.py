"""Measure the pixels of every object: its boundary and its intensities, block by block.

A block is read once, with the pixels around it. Sums are merged over the blocks that an object lies in. What needs all
of its pixels, hulls and medians, is measured where the object is complete, which most are within one block: only the
rows and pixels of those that lie in several blocks wait for the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, blocks
from pipeline.masks.measurements.boundaries import count_patterns, holes, on_boundary, perimeters
from pipeline.masks.measurements.intensities import Sums, sum_up, values_of
from pipeline.masks.measurements.parts import Parts, is_large, join, parts_of, thinned
from pipeline.masks.measurements.runs import find_runs
from pipeline.masks.measurements.windows import Region, windows
from pipeline.masks.object_table import ObjectTable
from pipeline.runtime.parallel_blocks import in_order
from pipeline.settings.measurements import Group
from pipeline.slides.slide import Slide

_BLOCK_PX = (512, 4096)  # smaller than elsewhere: all channels are in memory, and stains in float64
_OVERLAP = 2  # a window is measured without its outermost pixels, which only say what lies around the others


@dataclass(frozen=True)
class PixelMeasurements:
    """Measurements of n objects, in the order of their table. NaN: not asked for.

    Attributes
    ----------
    perimeters_px, holes : (n,) arrays
        Length of the boundary, number of holes.
    hulls : (3, n) array
        Pixels inside the convex hull, its largest and its smallest Feret diameter (px).
    intensities : dict of (channels, n) arrays
        By statistic, in units of the slide; stains are the last three channels.
    """

    perimeters_px: NDArray[np.float64]
    holes: NDArray[np.int64]
    hulls: NDArray[np.float64]
    intensities: dict[str, NDArray[np.float64]]


def measure_pixels(
    instances: Array,
    objects: ObjectTable,
    slide: Slide,
    groups: Collection[Group],
    *,
    block_px: tuple[int, int] = _BLOCK_PX,
) -> PixelMeasurements:
    """Measure the pixels of every object of a slide.

    Parameters
    ----------
    instances : (rows, columns) array of uint32
        Object ids, 0 = background.
    objects : ObjectTable
        Of the same array.
    slide : Slide
        What is measured. If that is stains, its last three channels are red, green and blue. Regions without objects
        are not read.
    groups : collection of str
        ``shape``, ``intensity``, ``stains``. Mean intensities are always measured.
    block_px : (rows, columns)
        Largest region read at once.
    """
    rows, columns = instances.shape
    found = _Found(objects, slide.channels)
    read = in_order(partial(_read, instances, slide, region) for region in blocks(instances.shape, block_px))
    around = windows(read, columns, rows, overlap=_OVERLAP)
    for block in in_order(partial(_measure_window, objects, groups, *window) for window in around):
        found.add(block)
    return PixelMeasurements(
        perimeters(found.patterns),
        holes(found.patterns),
        found.hulls,
        found.sums.statistics(found.edge_pixels) | {"median": found.medians},
    )


@dataclass(frozen=True)
class _Block:
    """What was measured of a block with m objects; most attributes are missing if there are none.

    Attributes
    ----------
    patterns : (ids, counts)
        From :func:`count_patterns`; also of objects that end beside the block.
    indices, areas, edge_pixels : (m,) arrays
        Objects there (rows of the table), their pixels there, and those of them on the boundary.
    sums : list of (m,) arrays
        By channel.
    complete, hulls, medians : (k,), (3, k), (channels, k) arrays
        Objects that lie in the block with all of their pixels, and what needs these.
    parts : dict
        Of the other objects.
    """

    patterns: tuple[NDArray[Any], NDArray[np.int64]]
    indices: NDArray[np.intp]
    areas: NDArray[np.intp]
    edge_pixels: NDArray[np.intp]
    sums: list[NDArray[Any]]
    complete: NDArray[np.intp]
    hulls: NDArray[np.float64] | float
    medians: NDArray[np.float64] | float
    parts: dict[int, Parts]


class _Found:
    """What was found in the blocks so far."""

    def __init__(self, objects: ObjectTable, channels: int) -> None:
        n = len(objects.ids)
        self.objects = objects
        self.patterns = np.zeros((n, 3), np.int64)
        self.edge_pixels = np.zeros(n, np.int64)
        self.sums = Sums(n, channels)
        self.hulls, self.medians = np.full((3, n), np.nan), np.full((channels, n), np.nan)
        self._waiting: dict[int, list[Parts]] = defaultdict(list)

    def add(self, block: _Block) -> None:
        """Add a block; measure the objects that are complete with it."""
        ids, counts = block.patterns
        self.patterns[np.searchsorted(self.objects.ids, ids)] += counts
        self.edge_pixels[block.indices] += block.edge_pixels
        self.sums.add(block.indices, block.areas, block.sums)
        self.hulls[:, block.complete], self.medians[:, block.complete] = block.hulls, block.medians
        for index, part in block.parts.items():
            self._waiting[index].append(part)
            if self.sums.pixels[index] == self.objects.areas_px[index]:
                whole = join(self._waiting.pop(index))
                self.hulls[:, [index]], self.medians[:, [index]] = whole.hulls(), whole.medians()


def _read(instances: Array, slide: Slide, region: Region) -> tuple[Region, list[NDArray[Any]]]:
    numbers = np.asarray(instances[region])
    if numbers.any():
        return region, [numbers, *slide.read(*region)]
    return region, [numbers, *np.broadcast_to(np.zeros((), slide.levels[0].dtype), (slide.channels, *numbers.shape))]


def _measure_window(
    objects: ObjectTable, groups: Collection[Group], top: int, left: int, planes: list[NDArray[Any]]
) -> _Block:
    window, *channels = planes
    inner = np.zeros_like(window)
    inner[1:-1, 1:-1] = window[1:-1, 1:-1]
    patterns, runs = count_patterns(window), find_runs(inner)
    edge = on_boundary(window, runs.pixels)
    values = values_of(channels, runs.pixels, stains="stains" in groups)
    indices = np.searchsorted(objects.ids, runs.ids)
    areas = objects.areas_px[indices]
    is_complete = (runs.areas == areas) & ~is_large(areas)
    parts = parts_of(runs, values, window.shape, (top - _OVERLAP, left - _OVERLAP))
    complete = parts.where(is_complete)
    return _Block(
        patterns=patterns,
        indices=indices,
        areas=runs.areas,
        edge_pixels=runs.of_pixels(edge, dtype=np.intp),
        sums=[sum_up(own, runs, edge) for own in values],
        complete=indices[is_complete],
        hulls=complete.hulls() if "shape" in groups else np.nan,
        medians=complete.medians() if "intensity" in groups else np.nan,
        parts={
            int(indices[nth]): thinned(parts.one(nth), int(areas[nth])) for nth in np.flatnonzero(~is_complete).tolist()
        },
    )
