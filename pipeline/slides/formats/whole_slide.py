"""Whole slides of scanner vendors (SVS, NDPI, MRXS, SCN, BIF, ...) by OpenSlide: 8-bit RGB over a white background.

The canvas is read as the scanner wrote it: ``openslide.bounds-*`` are not applied, so that positions in masks are those
that other programs show without cropping.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from pipeline.slides.formats.image import Image, PixelSize, Series, pixel_size

_BLOCK_PX = 1024


def is_of_vendor(path: Path) -> bool:
    """Say whether OpenSlide knows the scanner of a file; a plain tiled TIFF is not of one."""
    return openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff")


def open_whole_slide(path: Path, _: int, stack: ExitStack) -> list[Series]:
    """Return the slide of a file; its label and overview pictures are not read."""
    slide = stack.enter_context(openslide.OpenSlide(path))
    return [Series(name="", open=lambda: _image(slide))]


def _image(slide: openslide.OpenSlide) -> Image:
    levels = tuple(_Level(slide, number) for number in range(slide.level_count))
    return Image(levels=levels, axes="YXS", pixel_size_um=_pixel_size(slide))


def _pixel_size(slide: openslide.OpenSlide) -> PixelSize | None:
    try:
        return pixel_size(
            *(float(slide.properties[name]) for name in (openslide.PROPERTY_NAME_MPP_Y, openslide.PROPERTY_NAME_MPP_X))
        )
    except (KeyError, ValueError):
        return None


class _Level:
    """One resolution as an array (rows, columns, 3).

    OpenSlide places a region in pixels of the finest level. In a coarser one it can fall between two pixels and be
    interpolated, differently for each region. So those are read in blocks of a fixed raster: every pixel has one value.
    """

    def __init__(self, slide: openslide.OpenSlide, number: int) -> None:
        columns, rows = slide.level_dimensions[number]
        self.shape, self.dtype = (rows, columns, 3), np.dtype(np.uint8)
        self._slide, self._number = slide, number

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows, columns = (range(length)[part] for part, length in zip(key[:2], self.shape[:2], strict=True))
        if self._number == 0:
            return self._read(rows, columns)[..., key[2]]
        pixels = np.empty((len(rows), len(columns), 3), dtype=np.uint8)
        for block_rows in _blocks(rows, self.shape[0]):
            for block_columns in _blocks(columns, self.shape[1]):
                block = self._read(block_rows, block_columns)
                (into_rows, from_rows), (into_columns, from_columns) = (
                    _overlap(wanted, there) for wanted, there in ((rows, block_rows), (columns, block_columns))
                )
                pixels[into_rows, into_columns] = block[from_rows, from_columns]
        return pixels[..., key[2]]

    def _read(self, rows: range, columns: range) -> NDArray[np.uint8]:
        downsample = self._slide.level_downsamples[self._number]
        place = round(columns.start * downsample), round(rows.start * downsample)
        region = np.asarray(self._slide.read_region(place, self._number, (len(columns), len(rows))))
        return _over_white(region)


def _blocks(wanted: range, length: int) -> list[range]:
    first = wanted.start // _BLOCK_PX * _BLOCK_PX
    return [range(start, min(start + _BLOCK_PX, length)) for start in range(first, wanted.stop, _BLOCK_PX)]


def _overlap(wanted: range, there: range) -> tuple[slice, slice]:
    """Return where the common part of two ranges is in each of them."""
    start, stop = max(wanted.start, there.start), min(wanted.stop, there.stop)
    return slice(start - wanted.start, stop - wanted.start), slice(start - there.start, stop - there.start)


def _over_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (rows, columns, 3) of (rows, columns, 4) RGBA; what was not scanned is white."""
    colour, opacity = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
    if (opacity == 255).all():
        return np.ascontiguousarray(colour)
    return ((colour * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
