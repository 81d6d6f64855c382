"""Find the tissue on a stained slide, and the tiles that are empty glass, from one low resolution.

A slide goes in, a boolean map of small cells comes out, or None if glass cannot be recognized: that takes bright-field
images in 8-bit RGB. In fluorescence and electron microscopy dark may mean dim, so nothing is skipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from pipeline.base.arrays import bands
from pipeline.runtime.parallel_blocks import in_order
from pipeline.slides.slide import Slide
from pipeline.tiling.grid import Grid, Region

# Lengths in pixels of the finest resolution, intensities in grey levels of 255.
_LEAST_PX = 2**22  # a smaller slide is a chosen field of view, without empty glass
_COARSEST = 4  # single small nuclei would vanish at a coarser resolution
_SMOOTH_PX = 4  # averaged first, so that camera noise does not count as tissue
_CELL_PX = 32
_MOST_CELLS = 2**22  # above it cells get larger, so that memory does not
_MARGIN_PX = 64  # added around all tissue found
_BAND_PX = 2**23  # read at a time

_DARKEST_GLASS = 64  # below white
_LARGEST_TINT = 20  # between the brightest and the darkest colour of glass
_LEAST_CONTRAST = 32  # between glass and the mean of what is darker than Otsu's threshold
_VISIBLE = 12  # tissue is at least this much darker than glass, in any colour


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Where a slide has tissue.

    Attributes
    ----------
    stained : (rows, columns) bool array
        Cells of the slide in which something is visible.
    cells : (rows, columns) bool array
        Those that may hold tissue: a margin around them too.
    cell_px : (float, float)
        Sides of a cell in px of the slide.
    """

    stained: NDArray[np.bool_]
    cells: NDArray[np.bool_]
    cell_px: tuple[float, float]

    def is_in(self, region: Region) -> bool:
        """Return whether a region of the slide has tissue in it."""
        rows, columns = (
            slice(math.floor(part.start / side), math.ceil(part.stop / side))
            for part, side in zip(region.slices, self.cell_px, strict=True)
        )
        return bool(self.cells[rows, columns].any())


def find_tissue(slide: Slide) -> Tissue | None:
    """Find the tissue on a slide.

    The *absorption* of a pixel is 255 minus its darkest colour: it is high for dark and for colourful stains. Its most
    frequent value is glass, which Otsu's threshold must separate from the rest. Otsu alone would lose pale tissue, so
    all that absorbs visibly more than glass counts as tissue, with a margin around; one such spot marks its cell.

    Returns
    -------
    Tissue or None
        None if every tile must be segmented: the slide is not 8-bit RGB or has less than 4 million pixels, or the
        background is not bright and colourless, or does not differ clearly from the rest.

    References
    ----------
    Otsu (1979), doi:10.1109/TSMC.1979.4310076
    """
    if slide.channels != 3 or slide.levels[0].dtype != np.uint8 or math.prod(slide.shape) < _LEAST_PX:
        return None
    darkest, cell_px, counts, tint = _survey(slide)
    threshold = glass_threshold(counts, tint)
    if threshold is None:
        return None
    margin = [2 * math.ceil(_MARGIN_PX / side) + 1 for side in cell_px]
    stained = darkest > threshold
    return Tissue(stained=stained, cells=scipy.ndimage.maximum_filter(stained, size=margin), cell_px=cell_px)


def runs_with_tissue(tissue: Tissue, grid: Grid) -> list[tuple[int, int]]:
    """Return the tiles of a grid that hold tissue, as runs [first, stop) of their numbers, row by row."""
    runs: list[tuple[int, int]] = []
    number = 0
    for holds, tiles in groupby(grid.tiles(), key=lambda tile: tissue.is_in(tile.write)):
        first, number = number, number + sum(1 for _ in tiles)
        if holds:
            runs.append((first, number))
    return runs


def glass_threshold(counts: NDArray[np.int64], tint: NDArray[np.float64]) -> float | None:
    """Return the largest absorption of glass, or None if glass cannot be told from tissue.

    Parameters
    ----------
    counts : (256,) int array
        Pixels of each absorption.
    tint : (256,) float array
        The mean difference between the brightest and the darkest colour of those pixels.
    """
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return None
    values = np.arange(present[0], present[-1] + 1)
    otsu = int(threshold_otsu(hist=(counts[values], values)))
    glass = int(counts.argmax())
    if glass > min(otsu, _DARKEST_GLASS) or tint[glass] > _LARGEST_TINT:
        return None
    rest = np.average(np.arange(otsu + 1, 256), weights=counts[otsu + 1 :])
    if rest - glass < _LEAST_CONTRAST:
        return None
    return float(min(otsu, glass + _VISIBLE))


def _survey(slide: Slide) -> tuple[NDArray[np.uint8], tuple[float, float], NDArray[np.int64], NDArray[np.float64]]:
    """Return the largest absorption in each cell, the sides of a cell, and the arguments of :func:`glass_threshold`."""
    levels = range(len(slide.levels))
    level = max(index for index in levels if round(slide.shape[0] / slide.shape_of(index)[0]) <= _COARSEST)
    shape = slide.shape_of(level)
    scale = slide.shape[0] / shape[0], slide.shape[1] / shape[1]
    spot = max(1, round(_SMOOTH_PX / scale[0]))
    cell = max(_CELL_PX / scale[0], math.sqrt(math.prod(shape) / _MOST_CELLS))
    spots = max(1, math.ceil(cell / spot))
    side = spot * spots
    found = [
        *in_order(
            partial(_survey_band, slide, level, rows, spot, spots)
            for rows in bands(shape[0], max(1, _BAND_PX // (shape[1] * side)) * side)
        )
    ]
    darkest, counts, tints = zip(*found, strict=True)
    pixels = np.sum(counts, axis=0)
    tint = np.sum(tints, axis=0) / spot**2 / np.maximum(pixels, 1)
    return np.concatenate(darkest), (side * scale[0], side * scale[1]), pixels, tint


def _survey_band(
    slide: Slide, level: int, rows: slice, spot: int, spots: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return of a band of whole cells: the largest absorption in each cell, spots and summed tint by absorption.

    The tint is summed over the pixels of all spots, in integers, so that bands of any height give the same. The last
    pixels of the level are repeated to fill the last cells.
    """
    columns = slide.shape_of(level)[1]
    band = slide.read(rows, slice(0, columns), level)
    band = np.pad(band, [(0, 0), (0, -band.shape[1] % (spot * spots)), (0, -columns % (spot * spots))], mode="edge")
    low = np.minimum(np.minimum(band[0], band[1]), band[2])  # many times faster than band.min(axis=0)
    high = np.maximum(np.maximum(band[0], band[1]), band[2])
    absorption = np.rint(_sums(255 - low, spot) / spot**2).astype(np.uint8)
    colour = _sums(high - low, spot)
    counts = np.bincount(absorption.ravel(), minlength=256)
    tints = np.bincount(absorption.ravel(), weights=colour.ravel(), minlength=256).astype(np.int64)
    cells = absorption.reshape(absorption.shape[0] // spots, spots, absorption.shape[1] // spots, spots)
    return cells.max(axis=(1, 3)), counts, tints


def _sums(image: NDArray[np.uint8], side: int) -> NDArray[np.uint32]:
    """Return the sum of each square of ``side`` pixels: of its columns, then of its rows."""
    across = reduce(np.add, (image[:, start::side].astype(np.uint32) for start in range(side)))
    return reduce(np.add, (across[start::side] for start in range(side)))
