"""Sums per region of a slide: how much of each class is in it, and the means of what was measured on its objects.

A class map, regions and the columns of the table of objects go in, rows of ``results/regions.csv`` come out. A pixel
counts in the regions that hold its centre, an object in those that hold the pixel of its centroid. So the sums over
regions that share no pixel, and cover the slide, are those of the slide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from pipeline.base.arrays import STRIP_PX, Array, blocks
from pipeline.base.files import spreadsheet_text
from pipeline.masks.measurements.dictionary import has_mean, is_positive
from pipeline.runtime.parallel_blocks import in_order
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.regions import SEPARATOR, WHOLE, Regions, union_of

_UM2_PER_MM2 = 1e6


@dataclass(frozen=True, kw_only=True)
class Members:
    """What is in the regions of a slide.

    Attributes
    ----------
    class_px : (classes,) int64 array
        Pixels of each class on the whole slide.
    names : list of str
        Of the regions.
    region_px : (regions, classes) int64 array
        Pixels of each class in each region.
    objects : list of (n,) int64 arrays
        Indices of the objects in each region, ascending.
    """

    class_px: NDArray[np.int64]
    names: list[str]
    region_px: NDArray[np.int64]
    objects: list[NDArray[np.int64]]


def find_members(
    classes: Array,
    centroids_px: NDArray[np.float64],
    regions: Regions | None,
    *,
    num_classes: int,
    block_px: tuple[int, int] = STRIP_PX,
) -> Members:
    """Find the pixels and the objects of each region.

    Parameters
    ----------
    classes : (rows, columns) array of uint8
        Class map.
    centroids_px : (objects, 2) float64 array
        Row and column; the centre of the first pixel is (0, 0).
    regions : Regions or None
        None: the whole slide is the one region.
    num_classes : int
        Classes that are counted.
    block_px : (rows, columns)
        Largest part of the class map that is read at once.

    Raises
    ------
    ValueError
        If a pixel has a higher class.
    """
    shape = (classes.shape[0], classes.shape[1])
    drawn = [] if regions is None else [_Drawn.of(polygons, shape) for polygons in regions.areas]
    at = np.floor(centroids_px + 0.5).astype(np.int64)
    across = -(-shape[1] // block_px[1])
    block = at[:, 0] // block_px[0] * across + at[:, 1] // block_px[1]
    order = np.argsort(block, kind="stable")
    groups = np.split(order, np.searchsorted(block[order], np.arange(1, -(-shape[0] // block_px[0]) * across)))
    pieces = zip(blocks(shape, block_px), groups, strict=True)
    counted = np.zeros((len(drawn) + 1, 256), np.int64)
    objects: list[list[NDArray[np.int64]]] = [[np.empty(0, np.int64)] for _ in drawn]
    for counts, found in in_order(partial(_in_block, classes, drawn, at, *piece) for piece in pieces):
        counted += counts
        for own, new in zip(objects, found, strict=True):
            own.append(new)
    if (highest := int(np.flatnonzero(counted[-1])[-1])) >= num_classes:
        raise ValueError(f"the mask has class {highest} (counted from 0), but {num_classes} classes are configured")
    counted = counted[:, :num_classes]
    if regions is None:
        return Members(class_px=counted[-1], names=[WHOLE], region_px=counted, objects=[np.arange(len(at))])
    members = [np.sort(np.concatenate(own)) for own in objects]
    return Members(class_px=counted[-1], names=regions.names, region_px=counted[:-1], objects=members)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A region: its pixels, (1, rows, columns), 0 outside, and the box that they lie in, half-open."""

    pixels: Array
    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, polygons: Sequence[Any], shape: tuple[int, int]) -> _Drawn:
        left, top, right, bottom = shapely.total_bounds(np.array(polygons, dtype=object))
        return cls(
            pixels=union_of(polygons, shape),
            top=max(0, math.floor(top)),
            left=max(0, math.floor(left)),
            bottom=min(shape[0], math.ceil(bottom)),
            right=min(shape[1], math.ceil(right)),
        )


def _in_block(
    classes: Array,
    drawn: Sequence[_Drawn],
    at: NDArray[np.int64],
    block: tuple[slice, slice],
    here: NDArray[np.int64],
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the pixels of each class in each region, and last in the block; and which objects are in each region.

    ``at`` is the pixel of the centroid of each object, ``here`` are the indices of those in the block.
    """
    rows, columns = block
    labels = np.asarray(classes[block])
    counts = np.zeros((len(drawn) + 1, 256), np.int64)
    counts[-1] = np.bincount(labels.ravel(), minlength=256)
    objects = [np.empty(0, np.int64) for _ in drawn]
    for index, region in enumerate(drawn):
        top, bottom = max(rows.start, region.top), min(rows.stop, region.bottom)
        left, right = max(columns.start, region.left), min(columns.stop, region.right)
        if top >= bottom or left >= right:
            continue
        inside = np.asarray(region.pixels[0, top:bottom, left:right]) > 0
        own = labels[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
        counts[index] = np.bincount(own[inside], minlength=256)
        row, column = at[here].T
        near = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        objects[index] = here[near][inside[row[near] - top, column[near] - left]]
    return counts, objects


def regions_of_objects(members: Members, count: int) -> NDArray[np.object_]:
    """Return the names of the regions of each of ``count`` objects, as the text of a cell."""
    texts = np.full(count, "", dtype=object)
    for name, own in zip(members.names, members.objects, strict=True):
        held = texts[own]
        texts[own] = np.where(held == "", spreadsheet_text(name), held + SEPARATOR + name)
    return texts


def region_table(
    members: Members, columns: Mapping[str, NDArray[Any]], classes: Sequence[str], pixel_size_um: PixelSize | None
) -> pd.DataFrame:
    """Return a row per region and class, as docs/contracts.md describes; a cell without a value is empty.

    Parameters
    ----------
    members : Members
        Of the slide.
    columns : mapping of (objects,) arrays
        The table of objects: ``class``, and numbers of which those with a mean are averaged.
    classes : sequence of str
        Background first, which has no objects.
    """
    pixel_mm2 = math.nan if pixel_size_um is None else math.prod(pixel_size_um) / _UM2_PER_MM2
    counted = {name: values.astype(np.float64) for name, values in columns.items() if is_positive(name)}
    averaged = [name for name, values in columns.items() if values.dtype.kind in "iuf" and has_mean(name)]
    numbers = np.array([columns[name] for name in averaged], dtype=np.float64).reshape(len(averaged), -1)
    names = np.asarray(columns["class"], dtype=object)
    rows = []
    for region, pixels, own in zip(members.names, members.region_px, members.objects, strict=True):
        area_px = int(pixels.sum())
        for index, (kind, class_px) in enumerate(zip(classes, pixels.tolist(), strict=True)):
            inside = own[names[own] == kind]
            count = len(inside) if index else None
            rows.append(
                {
                    "region": spreadsheet_text(region),
                    "class": kind,
                    "region_area_px": area_px,
                    "region_area_mm2": area_px * pixel_mm2,
                    "objects": count,
                    "objects_per_mm2": math.nan if count is None or not area_px else count / (area_px * pixel_mm2),
                    "area_px": class_px,
                    "area_mm2": class_px * pixel_mm2,
                    "area_fraction": class_px / area_px if area_px else math.nan,
                    **_positives(counted, inside if index else None),
                    **_means(averaged, numbers[:, inside if index else inside[:0]]),
                }
            )
    table: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    return pd.DataFrame(table | {name: pd.array(table[name], dtype="Int64") for name in ("objects", *counted)})


def _positives(counted: Mapping[str, NDArray[np.float64]], inside: NDArray[np.int64] | None) -> dict[str, float | None]:
    """Return how many of some objects are positive, then their shares of those where that is known.

    None and NaN for the background, and where it is known of none of several objects.
    """
    counts: dict[str, float | None] = dict.fromkeys(counted)
    shares = dict.fromkeys((f"{name}_share" for name in counted), math.nan)
    if inside is None:
        return {**counts, **shares}
    for name, values in counted.items():
        known = values[inside][~np.isnan(values[inside])]
        if len(known) or not len(inside):
            counts[name] = float(known.sum())
        if len(known):
            shares[f"{name}_share"] = float(known.mean())
    return {**counts, **shares}


def _means(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    """Return mean and sample standard deviation of each row of values that are known; NaN where they have none."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean = np.where(known, values, 0).sum(axis=1) / count
        apart = np.where(known, values - mean[:, None], 0)
        sd = np.sqrt((apart**2).sum(axis=1) / np.maximum(count - 1, 0))
    found = zip(names, mean.tolist(), np.where(count > 1, sd, math.nan).tolist(), strict=True)
    return {f"{name}_{what}": value for name, *both in found for what, value in zip(("mean", "sd"), both, strict=True)}
