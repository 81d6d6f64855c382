"""Read whole slides of scanner vendors (SVS, NDPI, MRXS, SCN, BIF, ...) with OpenSlide: 8-bit RGB on white.

The canvas is not cropped to ``openslide.bounds-*``, so that positions in masks are those that other programs show.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from pipeline.base.arrays import LazyArray, bands
from pipeline.slides.formats.image import Image, PixelSize, Series, pixel_size

_BLOCK_PX = 1024


def is_of_vendor(path: Path) -> bool:
    """Return whether OpenSlide recognizes the scanner of a file; a plain tiled TIFF has none."""
    return openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff")


def open_whole_slide(path: Path, _: int, stack: ExitStack) -> list[Series]:
    """Return the slide of a file without its label and overview pictures."""
    slide = stack.enter_context(openslide.OpenSlide(path))
    return [Series(name="", open=lambda: _image(slide))]


def _image(slide: openslide.OpenSlide) -> Image:
    levels = tuple(level_array(slide, number) for number in range(slide.level_count))
    return Image(levels=levels, axes="YXS", pixel_size_um=_pixel_size(slide))


def _pixel_size(slide: openslide.OpenSlide) -> PixelSize | None:
    try:
        return pixel_size(
            *(float(slide.properties[name]) for name in (openslide.PROPERTY_NAME_MPP_Y, openslide.PROPERTY_NAME_MPP_X))
        )
    except (KeyError, ValueError):
        return None


def level_array(slide: openslide.OpenSlide, number: int) -> LazyArray:
    """Return one resolution as a (rows, columns, 3) array.

    OpenSlide places a region in pixels of the finest level. In a coarser one it can fall between two pixels and be
    interpolated, differently for each region. So those are read in blocks of a fixed grid: every pixel has one value.
    """
    width, height = slide.level_dimensions[number]
    downsample = slide.level_downsamples[number]

    def read_exactly(rows: slice, columns: slice) -> NDArray[np.uint8]:
        corner = round(columns.start * downsample), round(rows.start * downsample)
        size = columns.stop - columns.start, rows.stop - rows.start
        return _over_white(np.asarray(slide.read_region(corner, number, size)))

    def read(rows: slice, columns: slice, colours: Any) -> NDArray[np.uint8]:
        if number == 0:
            return read_exactly(rows, columns)[..., colours]
        pixels = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), dtype=np.uint8)
        for block in itertools.product(_blocks(rows, height), _blocks(columns, width)):
            into, taken = zip(*map(_overlap, (rows, columns), block), strict=True)
            pixels[into] = read_exactly(*block)[taken]
        return pixels[..., colours]

    return LazyArray((height, width, 3), np.dtype(np.uint8), read)


def _blocks(wanted: slice, length: int) -> list[slice]:
    """Return the blocks of the fixed grid that a range touches."""
    return [part for part in bands(length, _BLOCK_PX) if part.start < wanted.stop and part.stop > wanted.start]


def _overlap(wanted: slice, there: slice) -> tuple[slice, slice]:
    """Return the common part of two ranges, counted from the start of each."""
    start, stop = max(wanted.start, there.start), min(wanted.stop, there.stop)
    return slice(start - wanted.start, stop - wanted.start), slice(start - there.start, stop - there.start)


def _over_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (rows, columns, 4) RGBA as RGB on white; transparent pixels were not scanned."""
    colour, opacity = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
    if (opacity == 255).all():
        return np.ascontiguousarray(colour)
    return ((colour * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
