"""Read TIFF, BigTIFF, OME-TIFF (pyramids, sets of files) and ImageJ hyperstacks with tifffile.

TIFF files of scanners go on to OpenSlide (``whole_slide.py``).
"""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

from pipeline.base.arrays import Array, LazyArray
from pipeline.slides.formats import ome_xml, whole_slide
from pipeline.slides.formats.colours import apply_palette, invert
from pipeline.slides.formats.image import AXES, UNITS_UM, Image, PixelSize, Series, check_budget

_KEPT_MB = 16  # a level up to this size is decoded once and kept: windows overlap, and strips span whole rows
_LARGEST_PIXEL_UM = 100.0  # a larger one is meant for a printer (72 dpi = 353 µm), not measured by a microscope
_DECODED_TO_RGB = {COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.APERIO_JP2000_YCBC}


def open_tiff(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the series of a TIFF, or the one image of a scanner's whole slide."""
    if whole_slide.is_of_vendor(path):
        return whole_slide.open_whole_slide(path, budget_bytes, stack)
    return _series(stack.enter_context(tifffile.TiffFile(path)), budget_bytes, stack)


def open_companion(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the series of a set of OME-TIFF files that ``path`` (OME-XML) describes."""
    xml = ome_xml.read_companion(path)
    names = ome_xml.file_names(xml)
    if not names:
        raise ValueError("it names no TIFF file; copy it again, or remove it")
    if absent := [name for name in names if not (path.parent / name).is_file()]:
        raise ValueError(f"its file {absent[0]} is not in the same folder; copy the whole set")
    tiff = stack.enter_context(tifffile.TiffFile(path.parent / names[0], omexml=xml))
    return _series(tiff, budget_bytes, stack)


def _series(tiff: tifffile.TiffFile, budget_bytes: int, stack: ExitStack) -> list[Series]:
    if len(tiff.pages) == 0:
        raise ValueError("the TIFF has a header but no image; copy it again")
    return [
        Series(name=series.name, open=partial(_image, tiff, number, series, budget_bytes, stack))
        for number, series in enumerate(tiff.series)
    ]


def _image(
    tiff: tifffile.TiffFile, number: int, series: tifffile.TiffPageSeries, budget_bytes: int, stack: ExitStack
) -> Image:
    for level in series.levels:
        _check_pages(level, budget_bytes)
    described = ome_xml.read_description(tiff.ome_metadata, number) if series.kind == "ome" else ome_xml.Description()
    levels = [_as_brightness(level, _array(level, budget_bytes, stack)) for level in series.levels]
    return Image(
        levels=tuple(array for array, _ in levels),
        axes=_with_z(levels[0][1], levels[0][0].shape),
        pixel_size_um=described.pixel_size_um or _pixel_size(tiff, series.keyframe),
        channel_names=described.channel_names,
    )


def _with_z(axes: str, shape: tuple[int, ...]) -> str:
    """Call the pages of a TIFF without axes Z, so that ``image.z`` chooses one."""
    stacks = [axis for axis, length in zip(axes, shape, strict=True) if axis not in AXES and length > 1]
    return axes.replace(stacks[0], "Z") if len(stacks) == 1 and "Z" not in axes else axes


def _array(level: tifffile.TiffPageSeries, budget_bytes: int, stack: ExitStack) -> Array:
    """Return the pixels: small levels stay in memory, large ones are decoded piece by piece."""
    if level.nbytes <= min(_KEPT_MB * 10**6, budget_bytes):
        return _decoded_once(level)
    store = stack.enter_context(level.aszarr(level=0))
    return zarr.open_array(store, mode="r")


def _decoded_once(level: tifffile.TiffPageSeries) -> LazyArray:
    """Return a level that is decoded whole when it is first read: opening a file reads its header only."""
    shape = tuple(level.shape)

    @cache
    def decode() -> NDArray[Any]:
        pixels: NDArray[Any] = level.asarray()
        if pixels.shape != shape:
            raise ValueError(f"decoded to shape {pixels.shape}, but the header says {shape}; copy or save it again")
        return pixels

    return LazyArray(shape, np.dtype(level.dtype), lambda *key: decode()[key])


def _as_brightness(level: tifffile.TiffPageSeries, array: Array) -> tuple[Array, str]:
    """Return pixels whose numbers are brightness, and their axes."""
    page = level.keyframe
    photometric = PHOTOMETRIC(page.photometric)
    if photometric == PHOTOMETRIC.MINISWHITE:
        return invert(array, page.bitspersample), level.axes
    if photometric == PHOTOMETRIC.PALETTE and not page.is_imagej:  # ImageJ uses its palette for the display only
        return apply_palette(array, page.colormap), f"{level.axes}S"
    if photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE) and not (
        photometric == PHOTOMETRIC.YCBCR and page.compression in _DECODED_TO_RGB
    ):
        raise ValueError(f"colours stored as {photometric.name} cannot be read; save it in grey or RGB")
    return array, level.axes


def _check_pages(level: tifffile.TiffPageSeries, budget_bytes: int) -> None:
    """Refuse a file that is shorter than its header says, lacks planes, or has pieces larger than the budget."""
    if level.dtype is None or level.size == 0:
        raise ValueError(f"the image is empty: shape {level.shape}; copy or save it again")
    pages = [page for page in level.pages if page is not None]
    if missing := len(level.pages) - len(pages):
        raise ValueError(
            f"{missing} of the {len(level.pages)} planes that its OME-XML describes are missing; "
            "add the missing files, or save it again"
        )
    keyframe: Any = level.keyframe
    piece = math.prod(keyframe.chunks) * level.dtype.itemsize
    check_budget(f"a strip or tile of {' x '.join(map(str, keyframe.chunks))} px", piece, budget_bytes)
    for page in pages:
        ends = (start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False))
        end, file_bytes = max(ends, default=0), page.parent.filehandle.size
        if end > file_bytes:
            raise ValueError(
                f"the file is cut short: its data end at byte {end}, but it has {file_bytes} bytes; copy it again"
            )
        if len(page.dataoffsets) < math.prod(keyframe.chunked):
            raise ValueError(
                f"the header lists {len(page.dataoffsets)} strips or tiles, "
                f"an image of {' x '.join(map(str, keyframe.shape))} needs {math.prod(keyframe.chunked)}; save it again"
            )


def _pixel_size(tiff: tifffile.TiffFile, page: Any) -> PixelSize | None:
    """Return the pixel size in µm from the resolution tags or ImageJ's unit; None if it is meant for a printer."""
    unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit))
    if unit is None and tiff.imagej_metadata:
        unit = re.sub(r"\\u00B5|μ", "µ", str(tiff.imagej_metadata.get("unit", "")))
    if unit not in UNITS_UM or "XResolution" not in page.tags:
        return None
    columns_per_unit, rows_per_unit = page.resolution
    if min(columns_per_unit, rows_per_unit) <= 0:
        return None
    size = (UNITS_UM[unit] / rows_per_unit, UNITS_UM[unit] / columns_per_unit)
    return size if max(size) <= _LARGEST_PIXEL_UM else None
