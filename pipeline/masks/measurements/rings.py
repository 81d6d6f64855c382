"""Rings around objects: the pixels of no object up to a distance, each of the object that is nearest to it.

Blocks are read with a margin as wide as a ring: what is nearest, and how far, is the same as in the whole image. Two
objects at the same distance are told apart by their places relative to the pixel, which do not depend on the block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy  # loads scipy.ndimage when it is used: the stage starts sooner without
from numpy.typing import NDArray

from pipeline.base.arrays import Array, blocks
from pipeline.masks.measurements.intensities import Sums, sum_up, values_of
from pipeline.masks.measurements.runs import Runs, find_runs
from pipeline.masks.measurements.windows import Region
from pipeline.masks.object_table import ObjectTable
from pipeline.runtime.parallel_blocks import in_order
from pipeline.slides.formats.image import PixelSize, side_of_square
from pipeline.slides.slide import Slide

_BLOCK_PX = (512, 2048)  # the nearest pixels take 20 bytes a pixel
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Rings:
    """The rings of n objects, in the order of their table; NaN where none are known.

    Attributes
    ----------
    areas_px : (n,) array
        Pixels; 0 where other objects leave no room.
    sums : (channels, n) array
        Sums of intensities; stains are the last three channels.
    """

    areas_px: NDArray[np.float64]
    sums: NDArray[np.float64]


def measure_rings(
    instances: Array,
    objects: ObjectTable,
    slide: Slide,
    *,
    width_um: float,
    pixel_size_um: PixelSize | None,
    stains: bool,
    block_px: tuple[int, int] = _BLOCK_PX,
) -> Rings:
    """Measure the ring around every object of a slide.

    Parameters
    ----------
    instances : (rows, columns) array of uint32
        Object ids, 0 = background.
    objects : ObjectTable
        Of the same array.
    slide : Slide
        What is measured. With ``stains``, its last three channels are red, green and blue.
    width_um : float
        Of a ring, between centres of pixels.
    pixel_size_um : (row, column) or None
        Without it, nothing is known.
    block_px : (rows, columns)
        Largest region that is measured at once.
    """
    count = len(objects.ids)
    if pixel_size_um is None:
        return Rings(np.full(count, np.nan), np.full((slide.channels, count), np.nan))
    sums = Sums(count, slide.channels)
    measure = partial(_measure_block, instances, slide, width_um, pixel_size_um, stains)
    for found in in_order(partial(measure, region) for region in blocks(instances.shape, block_px)):
        if found:
            runs, of_channels = found
            sums.add(np.searchsorted(objects.ids, runs.ids), runs.areas, of_channels)
    return Rings(sums.pixels.astype(np.float64), sums.totals)


def _measure_block(
    instances: Array, slide: Slide, width_um: float, pixel_size_um: PixelSize, stains: bool, region: Region
) -> tuple[Runs, list[NDArray[Any]]] | None:
    """Return the rings in a block and the sums of each channel over them; None if there are none."""
    ring = _rings_in(instances, width_um, pixel_size_um, region)
    if not ring.any():
        return None
    runs = find_runs(ring)
    edge = np.zeros(runs.lengths.sum(), dtype=bool)
    values = values_of(list(slide.read(*region)), runs.pixels, stains=stains)
    return runs, [sum_up(own, runs, edge) for own in values]


def _rings_in(instances: Array, width_um: float, pixel_size_um: PixelSize, region: Region) -> NDArray[np.uint32]:
    """Return for each pixel of a block the object in whose ring it is, 0 for none."""
    margins = [math.ceil(width_um * _ROUNDING / side) + 1 for side in pixel_size_um]
    around = [
        slice(max(0, part.start - margin), min(length, part.stop + margin))
        for part, margin, length in zip(region, margins, instances.shape, strict=True)
    ]
    window = np.asarray(instances[tuple(around)])
    inner = tuple(
        slice(part.start - wide.start, part.stop - wide.start) for part, wide in zip(region, around, strict=True)
    )
    outside = window == 0
    if outside.all() or not outside[inner].any():
        return np.zeros(window[inner].shape, window.dtype)
    side_um = side_of_square(pixel_size_um)  # if there is one, distances are those of whole numbers
    nearest = scipy.ndimage.distance_transform_edt(
        outside, sampling=None if side_um else pixel_size_um, return_distances=False, return_indices=True
    )
    rows, columns = (index[inner] for index in nearest)
    is_near = (
        _squares(rows, columns, inner, None if side_um else pixel_size_um)
        <= (width_um * _ROUNDING / (side_um or 1.0)) ** 2
    )
    in_ring = np.nonzero(outside[inner] & is_near)
    ring = np.zeros(rows.shape, window.dtype)
    ring[in_ring] = window[rows[in_ring], columns[in_ring]]
    return ring


def _squares(
    rows: NDArray[np.int32], columns: NDArray[np.int32], inner: tuple[slice, ...], sides: PixelSize | None
) -> NDArray[Any]:
    """Return the squared distances between the pixels of a block and others, in place: most of the time is here.

    Parameters
    ----------
    rows, columns : (rows, columns) int32 arrays
        Of the other pixel.
    sides : (row, column) or None
        Of a pixel; None: both are 1, and squares are whole numbers.
    """
    of_rows, of_columns = (np.arange(part.start, part.stop, dtype=np.int32) for part in inner)
    down, across = rows - of_rows[:, None], columns - of_columns
    if sides is not None:
        squares: NDArray[np.float64] = np.square(down * sides[0]) + np.square(across * sides[1])
        return squares
    down *= down
    across *= across
    down += across
    return down
