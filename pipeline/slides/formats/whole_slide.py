"""Read whole slides of scanner vendors (SVS, NDPI, MRXS, SCN, BIF, ...) and DICOM with OpenSlide: 8-bit RGB on white.

The canvas is not cropped to ``openslide.bounds-*``, so that positions in masks are those that other programs show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray, bands
from pipeline.project.drop.image_files import dicom_files
from pipeline.slides.formats.compression.damage import count_damaged
from pipeline.slides.formats.compression.picture_size import check_tiles
from pipeline.slides.formats.image import Image, PixelSize, Series, pixel_size
from pipeline.slides.formats.tiff_tiles import array_of_tiles

_BLOCK_PX = 1024
_DICOM_SERIES = "dicom.SeriesInstanceUID"
# Aperio's: the first has colours that OpenSlide converts; of the second, a decoder may round in another way.
_JPEG_2000 = (tifffile.COMPRESSION.APERIO_JP2000_YCBC, tifffile.COMPRESSION.APERIO_JP2000_RGB)
_SCANS_EVERY_TILE = "aperio"  # scanners of other vendors leave out tiles of glass


def is_of_vendor(path: Path) -> bool:
    """Return whether OpenSlide recognizes the scanner of a file; a plain tiled TIFF has none."""
    return openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff")


def open_whole_slide(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the slide of a file without its label and overview pictures."""
    slide = stack.enter_context(openslide.OpenSlide(path))
    return [Series(name="", open=lambda: _image(slide, path, budget_bytes, stack))]


def open_dicom(folder: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the slide of a folder of DICOM files, which are its levels, label and overview.

    Raises
    ------
    ValueError
        If they are of several slides: of each file, OpenSlide would read the one that it is of, and no other.
    """
    files = dicom_files(folder)
    found: dict[str, str] = {}
    for file in files:
        with openslide.OpenSlide(file) as slide:
            found.setdefault(slide.properties[_DICOM_SERIES], file.name)
    if len(found) > 1:
        several = ", ".join(found.values())
        raise ValueError(f"its files are of {len(found)} slides ({several}); give each slide a folder of its own")
    return open_whole_slide(files[0], budget_bytes, stack)


def _image(slide: openslide.OpenSlide, path: Path, budget_bytes: int, stack: ExitStack) -> Image:
    levels: list[Array] = [level_array(slide, number) for number in range(slide.level_count)]
    if slide.properties.get(openslide.PROPERTY_NAME_VENDOR) == _SCANS_EVERY_TILE:
        levels = list(_stored_levels(slide, levels, path, budget_bytes, stack))
    missing = partial(_missing, path, slide)
    return Image(levels=tuple(levels), axes="YXS", pixel_size_um=_pixel_size(slide), lossy="JPEG", missing=missing)


def _stored_levels(
    slide: openslide.OpenSlide, levels: list[Array], path: Path, budget_bytes: int, stack: ExitStack
) -> Iterator[Array]:
    """Yield the levels of an Aperio file as they are stored, by tifffile.

    The finest one is the same in OpenSlide, which takes three times as long; coarser ones are without interpolation.
    """
    tiff = stack.enter_context(tifffile.TiffFile(path))
    pages = {page.shape[1::-1]: page for page in (one.aspage() for one in tiff.pages) if page.is_tiled}
    for number, size in enumerate(slide.level_dimensions):
        page = pages.get(size)
        if page is None or page.compression in (_JPEG_2000 if number == 0 else _JPEG_2000[:1]):
            yield levels[number]
        else:
            check_tiles(page, budget_bytes)
            yield array_of_tiles(tifffile.TiffPageSeries([page]), stack)


def _missing(path: Path, slide: openslide.OpenSlide, level: int, _: Mapping[str, int]) -> tuple[int, int]:
    """Refuse an Aperio file whose tiles are lost: OpenSlide fills them from other levels, or with white."""
    if slide.properties.get(openslide.PROPERTY_NAME_VENDOR) != _SCANS_EVERY_TILE:
        return 0, 1
    with tifffile.TiffFile(path) as tiff:
        pages = [page.aspage() for page in tiff.pages]
        of_level = [page for page in pages if page.is_tiled and page.shape[1::-1] == slide.level_dimensions[level]]
        counts = [count for page in of_level for count in page.databytecounts]
        if lost := counts.count(0):
            raise ValueError(f"{lost} of {len(counts)} tiles have no data; copy or scan it again")
        if damaged := sum(map(count_damaged, of_level)):
            raise ValueError(f"{damaged} of {len(counts)} tiles are damaged; copy or scan it again")
    return 0, max(1, len(counts))


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
    (Where the resolutions differ by whole numbers, as in most formats, nothing is interpolated.)
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
