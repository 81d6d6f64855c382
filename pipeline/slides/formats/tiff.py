"""Read TIFF, BigTIFF, OME-TIFF (pyramids, sets of files) and ImageJ hyperstacks with tifffile.

TIFF files of scanners go on to OpenSlide (``whole_slide.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

from pipeline.base.arrays import Array, LazyArray
from pipeline.project.drop.image_files import why_not_inside
from pipeline.project.drop.partial_tiff import is_partial
from pipeline.slides.formats import ome_xml, whole_slide
from pipeline.slides.formats.colours import apply_palette, invert
from pipeline.slides.formats.compression.damage import count_damaged
from pipeline.slides.formats.compression.lossy import lossy_compression
from pipeline.slides.formats.compression.picture_size import check_tiles
from pipeline.slides.formats.compression.stored import lock_of
from pipeline.slides.formats.image import (
    Image,
    PixelSize,
    Series,
    check_budget,
    ignored_size,
    orientation_warning,
    pixel_size,
    unit_um,
)
from pipeline.slides.formats.tiff_tiles import array_of_tiles

_OF_PAGES = "IQ"  # what tifffile calls an axis that the file does not name
_KEPT_MB = 16  # a level up to this size is decoded once and kept: windows overlap, and strips span whole rows
_LARGEST_PIXEL_UM = 10.0  # larger ones are meant for a printer: 72 dpi = 353 µm, 1200 dpi = 21 µm
_LARGEST_DOUBTFUL_UM = 100.0  # larger ones are so common in image editors that they need no warning
_NO_UNIT = {"", "pixel", "pixels", "null", "none"}  # of ImageJ
_DECODED_TO_RGB = {COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.APERIO_JP2000_YCBC}


def open_tiff(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the series of a TIFF, or the one image of a scanner's whole slide.

    Of a set of OME-TIFF files, of which each describes all, these are the series with planes in this one.
    """
    if whole_slide.is_of_vendor(path):
        _refuse_partial(path)
        return whole_slide.open_whole_slide(path, budget_bytes, stack)
    tiff = stack.enter_context(tifffile.TiffFile(path, is_mmstack=False))  # Micro-Manager's sets by their OME-XML
    numbered = _series(tiff)
    own = {number: series for number, series in numbered.items() if any(_is_in(tiff, page) for page in series)}
    return _opened(tiff, own or numbered, budget_bytes, stack)


def open_companion(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the series of a set of OME-TIFF files that ``path`` (OME-XML) describes."""
    xml = ome_xml.read_companion(path)
    names = [Path(name).name for name in ome_xml.file_names(xml)]
    if not names:
        raise ValueError("it names no TIFF file; copy it again, or remove it")
    if absent := [name for name in names if not (path.parent / name).is_file()]:
        raise ValueError(f"its file {absent[0]} is not in the same folder; copy the whole set")
    for name in names:
        _refuse_partial(path.parent / name)
    tiff = stack.enter_context(tifffile.TiffFile(path.parent / names[0], omexml=xml))
    return _opened(tiff, _series(tiff), budget_bytes, stack)


def _refuse_partial(path: Path) -> None:
    """Refuse a file whose directories point beyond its end, also if all that the chosen image needs is there."""
    if is_partial(path):
        raise ValueError(
            f"{path.name} is cut short: its header points beyond its {path.stat().st_size} bytes; copy it again"
        )


def _is_in(tiff: tifffile.TiffFile, page: Any) -> bool:
    return page is not None and page.parent.filehandle.path == tiff.filehandle.path


def _series(tiff: tifffile.TiffFile) -> dict[int, tifffile.TiffPageSeries]:
    """Return the images of a file by their number in it, without thumbnails."""
    if len(tiff.pages) == 0:
        raise ValueError("the TIFF has a header but no image; copy it again")
    _refuse_files_elsewhere(Path(tiff.filehandle.path), tiff.ome_metadata)
    numbered = dict(enumerate(tiff.series))
    _refuse_lost_planes(tiff, numbered[0])
    return {number: one for number, one in numbered.items() if not one.keyframe.is_reduced} or numbered


def _refuse_lost_planes(tiff: tifffile.TiffFile, first: tifffile.TiffPageSeries) -> None:
    """Refuse a stack of ImageJ with fewer planes than it states: they follow the first one, without directories."""
    stated, stored = int((tiff.imagej_metadata or {}).get("images", 1)), first.size // max(1, first.keyframe.size)
    if 0 < stored < stated:
        raise ValueError(
            f"its description by ImageJ states {stated} planes, and {stored} are there; copy it again, or, if this is "
            "one plane of a stack, save it without the description"
        )


def _opened(
    tiff: tifffile.TiffFile, numbered: Mapping[int, tifffile.TiffPageSeries], budget_bytes: int, stack: ExitStack
) -> list[Series]:
    return [
        Series(name=series.name, open=partial(_image, tiff, number, series, budget_bytes, stack))
        for number, series in numbered.items()
    ]


def _refuse_files_elsewhere(path: Path, xml: str | None) -> None:
    """Refuse a set with files out of its folder, or with a pipe: tifffile would open whatever OME-XML names."""
    for name in ome_xml.file_names(xml) if xml else ():
        place = path.parent / name
        if place.exists() and all(why_not_inside(place, folder) for folder in (path.parent, path.resolve().parent)):
            raise ValueError(f"its OME-XML names {name!r}, which is no file in its folder; save the set again")


def _image(
    tiff: tifffile.TiffFile, number: int, series: tifffile.TiffPageSeries, budget_bytes: int, stack: ExitStack
) -> Image:
    for level in series.levels:
        _check_pages(level, budget_bytes)
    _refuse_partial(Path(tiff.filehandle.path))
    described = _description(tiff, number, series)
    stored = tuple(_array(level, budget_bytes, stack) for level in series.levels)
    axes = _with_z(series.axes, series.shape)
    size, printer = (described.pixel_size_um, ()) if described.pixel_size_um else _pixel_size(tiff, series.keyframe)
    numbers = Image(
        levels=stored,
        axes=axes,
        pixel_size_um=size,
        z_step_um=described.z_step_um,
        channel_names=described.channel_names or _channel_names(tiff, series),
        lossy=lossy_compression(series.keyframe),
        has_bare_pages=axes != series.axes,
        warnings=described.warnings + printer + orientation_warning(_orientation(series.keyframe)),
        missing=partial(_missing, series.levels, axes),
    )
    levels, colours = zip(*map(_as_brightness, series.levels, stored), strict=True)
    if levels == stored:
        return numbers
    return replace(numbers, levels=levels, axes=axes + colours[0], numbers=numbers)


def _description(tiff: tifffile.TiffFile, number: int, series: tifffile.TiffPageSeries) -> ome_xml.Description:
    """Return what OME-XML says about an image; tifffile passes over one that does not fit the pages of its file."""
    if series.kind == "ome":
        return ome_xml.read_description(tiff.ome_metadata, number)
    return ome_xml.UNUSABLE if "<OME" in (tiff.ome_metadata or tiff.pages.first.description) else ome_xml.Description()


def _orientation(page: Any) -> object:
    return int(page.tags["Orientation"].value) if "Orientation" in page.tags else 1


def _missing(
    levels: list[tifffile.TiffPageSeries], axes: str, level: int, planes: Mapping[str, int]
) -> tuple[int, int]:
    """Count the tiles or strips without data of the chosen planes: all of them, if one page holds several planes.

    Those that are damaged are refused.
    """
    series = levels[level]
    leading = series.shape[: len(axes) - series.keyframe.ndim]
    pages = list(series.pages)
    if len(pages) == math.prod(leading):
        index = tuple(planes.get(axis, 0) for axis in axes[: len(leading)])
        pages = [pages[int(np.ravel_multi_index(index, leading)) if leading else 0]]
    counts = [count for page in pages if page is not None for count in page.databytecounts]
    if damaged := sum(count_damaged(page) for page in pages if page is not None):
        raise ValueError(f"{damaged} of its {len(counts)} tiles or strips are damaged; copy or save it again")
    return counts.count(0), len(counts)


def _with_z(axes: str, shape: tuple[int, ...]) -> str:
    """Call the pages of a TIFF without axes Z, so that ``image.z`` chooses one."""
    stacks = [axis for axis, length in zip(axes, shape, strict=True) if axis in _OF_PAGES and length > 1]
    return axes.replace(stacks[0], "Z") if len(stacks) == 1 and "Z" not in axes else axes


def _array(level: tifffile.TiffPageSeries, budget_bytes: int, stack: ExitStack) -> Array:
    """Return the pixels: small levels stay in memory, large ones are decoded piece by piece."""
    if level.nbytes <= min(_KEPT_MB * 10**6, budget_bytes):
        return _decoded_once(level)
    return array_of_tiles(level, stack)


def _decoded_once(level: tifffile.TiffPageSeries) -> LazyArray:
    """Return a level that is decoded whole when it is first read: opening a file reads its header only."""
    shape, lock = tuple(level.shape), lock_of(level.keyframe)

    @cache
    def decode() -> NDArray[Any]:
        pixels: NDArray[Any] = level.asarray(maxworkers=1)  # further threads would wait for this lock for ever
        if pixels.shape != shape:
            raise ValueError(f"decoded to shape {pixels.shape}, but the header says {shape}; copy or save it again")
        pixels.flags.writeable = False  # regions of it are not copied
        return pixels

    def read(*key: Any) -> NDArray[Any]:
        with lock:  # threads that come meanwhile wait for the same pixels
            region: NDArray[Any] = decode()[key]
        return region

    return LazyArray(shape, np.dtype(level.dtype), read)


def _as_brightness(level: tifffile.TiffPageSeries, array: Array) -> tuple[Array, str]:
    """Return pixels whose numbers are brightness, and the axis that they have more than the stored numbers."""
    page = level.keyframe
    photometric = PHOTOMETRIC(page.photometric)
    if photometric == PHOTOMETRIC.MINISWHITE:
        return invert(array, page.bitspersample), ""
    if photometric == PHOTOMETRIC.PALETTE and not page.is_imagej:  # ImageJ uses its palette for the display only
        return apply_palette(array, page.colormap), "S"
    if photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE) and not (
        photometric == PHOTOMETRIC.YCBCR and page.compression in _DECODED_TO_RGB
    ):
        raise ValueError(f"colours stored as {photometric.name} cannot be read; save it in grey or RGB")
    return array, ""


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
    check_tiles(keyframe, budget_bytes)
    for page in pages:
        ends = map(sum, _pieces(page))
        end, file_bytes = max(ends, default=0), page.parent.filehandle.size
        if end > file_bytes:
            raise ValueError(
                f"the file is cut short: its data end at byte {end}, but it has {file_bytes} bytes; copy it again"
            )
        if lost := sum((start == 0) != (length == 0) for start, length in _pieces(page)):
            raise ValueError(
                f"{lost} of its {len(page.dataoffsets)} strips or tiles have no data; copy or save it again"
            )
        if len(page.dataoffsets) < math.prod(keyframe.chunked):
            raise ValueError(
                f"the header lists {len(page.dataoffsets)} strips or tiles, "
                f"an image of {' x '.join(map(str, keyframe.shape))} needs {math.prod(keyframe.chunked)}; save it again"
            )


def _pieces(page: Any) -> list[tuple[int, int]]:
    """Return start and length of every strip or tile."""
    return list(zip(page.dataoffsets, page.databytecounts, strict=False))


def _channel_names(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> tuple[str, ...]:
    """Return what QPTIFF and LSM call their channels; empty where they do not say."""
    try:
        if series.kind == "qpi":
            pages = [page.aspage() for page in series.pages if page is not None]
            return tuple(ElementTree.fromstring(page.description).findtext("Name", "") for page in pages)
        return tuple(map(str, tiff.lsm_metadata["ChannelColors"]["ColorNames"])) if tiff.lsm_metadata else ()
    except (ElementTree.ParseError, AttributeError, KeyError, TypeError):
        return ()


def _pixel_size(tiff: tifffile.TiffFile, page: Any) -> tuple[PixelSize | None, tuple[str, ...]]:
    """Return the pixel size in µm from the resolution tags or ImageJ's unit, and a warning if it is ignored.

    Image editors and cameras write the resolution of a printer, in inches or cm; ImageJ takes its inches over.
    """
    if tiff.lsm_metadata:
        metres = [float(tiff.lsm_metadata.get(f"VoxelSize{axis}", 0)) for axis in "YX"]
        return pixel_size(metres[0] * 1e6, metres[1] * 1e6), ()
    unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit))
    is_calibrated = unit is None and bool(tiff.imagej_metadata)
    if is_calibrated:
        unit = re.sub(r"\\u00[Bb]5", "µ", str((tiff.imagej_metadata or {}).get("unit", "")))
    length_um = unit_um(unit or "")
    if not length_um or "XResolution" not in page.tags:
        is_unknown = is_calibrated and (unit or "").strip().lower() not in _NO_UNIT
        return None, (ignored_size(f"in the unit {unit!r}"),) if is_unknown else ()
    stated = [page.tags.valueof(f"{axis}Resolution", default=(1, 1)) for axis in "XY"]
    try:
        columns_um, rows_um = (length_um * under / over for over, under in stated)
        size = pixel_size(rows_um, columns_um)
    except (TypeError, ValueError, ZeroDivisionError):
        size = None
    if size is None:
        fractions = " x ".join("/".join(map(str, np.ravel(one))) for one in stated)
        return None, (ignored_size(f"a resolution of {fractions} pixels per {unit}"),)
    if max(size) > _LARGEST_PIXEL_UM and (not is_calibrated or length_um == unit_um("inch")):
        return None, (_printed(max(size)),) if max(size) <= _LARGEST_DOUBTFUL_UM else ()
    return size, ()


def _printed(size_um: float) -> str:
    dpi = f"{25_400 / size_um:.0f} dpi ({size_um:.4g} µm)"
    return f"its resolution of {dpi} is that of a printer, not taken as the pixel size"
