"""Slides: image files of any size, read by region. A table says which function opens which suffix.

What goes in is a path, what comes out is a :class:`Slide` whose pixels are (channel, row, column). Headers are checked
before a pixel is decoded; whatever is wrong with a file becomes one :class:`SlideError` that names it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import imagecodecs
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.errors import SlideError
from pipeline.project import SUFFIXES

Pixels = NDArray[Any]
PixelSize = tuple[float, float]

_DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
_UNITS_UM = {
    "pm": 1e-6,
    "nm": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": 25_400.0,
}
_KEPT_MB = 16  # a level up to this size is decoded once and kept; windows overlap, and strips span rows
_LARGEST_PIXEL_UM = 100.0  # above it a TIFF resolution is that of a printer (72 dpi = 353 µm), not of a microscope


class Array(Protocol):
    """What a level is: sliced by region, decoded on access."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of a slide. ``axes`` names those of ``array``: Y, X, one of C and S, others of length 1."""

    array: Array
    axes: str

    def __post_init__(self) -> None:
        if not {"Y", "X"} <= set(self.axes) or len(self.axes) != len(self.array.shape):
            raise ValueError(f"axes {self.axes} of shape {self.array.shape} are not those of an image")
        if min(self.array.shape) < 1:
            raise ValueError(f"the image is empty: shape {self.array.shape} ({self.axes})")
        if self.array.dtype.name not in _DTYPES:
            raise ValueError(f"pixels of type {self.array.dtype} cannot be read; allowed: {', '.join(_DTYPES)}")
        for axis, length in zip(self.axes, self.array.shape, strict=True):
            if axis not in "YX" and length > 1 and axis != self._channel_axis:
                raise ValueError(
                    f"{length} planes along axis {axis}; save the one plane to segment as a file of its own"
                )

    @property
    def _channel_axis(self) -> str | None:
        return next((axis for axis in "CS" if axis in self.axes and self._length(axis) > 1), None)

    def _length(self, axis: str) -> int:
        return self.array.shape[self.axes.index(axis)]

    @property
    def channels(self) -> int:
        """Number of channels (or colour samples)."""
        return self._length(self._channel_axis) if self._channel_axis else 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._length("Y"), self._length("X")

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Decode a region inside the level into (channel, row, column)."""
        regions = {"Y": rows, "X": columns, self._channel_axis: slice(None)}
        block = np.asarray(self.array[tuple(regions.get(axis, 0) for axis in self.axes)])
        kept = [axis for axis in self.axes if axis in regions]
        if self._channel_axis is None:
            return np.expand_dims(block.transpose([kept.index(axis) for axis in "YX"]), 0)
        return block.transpose([kept.index(axis) for axis in (self._channel_axis, "Y", "X")])


@dataclass(frozen=True, kw_only=True)
class Slide:
    """An open image file: its levels, finest first, and the size of a pixel of the finest (row, column; µm)."""

    path: Path
    levels: tuple[Level, ...]
    pixel_size_um: PixelSize | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the finest level."""
        return self.levels[0].shape

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.levels[0].channels

    def read(self, rows: slice, columns: slice, level: int = 0) -> Pixels:
        """Decode a region into (channel, row, column); raise :class:`SlideError` if its data are damaged."""
        with _as_slide_error(self.path):
            return self.levels[level].read(rows, columns)

    def read_all(self, level: int = 0) -> Pixels:
        """Decode a whole level into (channel, row, column)."""
        return self.read(slice(None), slice(None), level)

    def select(self, channels: list[int]) -> list[int]:
        """Return ``channels`` if the slide has all of them, else raise :class:`SlideError`."""
        if max(channels) >= self.channels:
            raise SlideError(
                f"{self.path}: channel {max(channels)} asked for (image.channels, counted from 0), "
                f"the file has {self.channels}; change the setting, or remove the file"
            )
        return channels


@contextmanager
def open_slide(path: Path, *, memory_mb: int) -> Iterator[Slide]:
    """Open an image file and close it at the end of the block.

    Parameters
    ----------
    path : Path
        TIFF, BigTIFF or OME-TIFF (``.tif``, ``.tiff``), or PNG (``.png``).
    memory_mb : int
        Most memory that decoding one piece (tile, strip; a whole PNG) may take.

    Raises
    ------
    SlideError
        If the file cannot be read, is damaged or has no image that fits the description above.
    """
    with ExitStack() as stack:
        with _as_slide_error(path):
            opener = next((_OPENERS[suffix] for suffix in _OPENERS if path.name.lower().endswith(suffix)), None)
            if opener is None:
                raise ValueError(f"no reader for this suffix; known: {', '.join(SUFFIXES)}")
            if path.stat().st_size == 0:
                raise ValueError("the file is empty (0 bytes); copy it again")
            slide = opener(path, memory_mb * 10**6, stack)
        yield slide


def read_plane(path: Path, *, memory_mb: int) -> Pixels:
    """Return the (row, column) pixels of a file with one channel, as label images are, or raise :class:`SlideError`."""
    with open_slide(path, memory_mb=memory_mb) as slide:
        if slide.channels != 1:
            raise SlideError(
                f"{path}: a label image has 1 channel, this file has {slide.channels}; save it as a grey image"
            )
        plane: Pixels = slide.read_all()[0]
        return plane


@contextmanager
def _as_slide_error(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into one line about the file. Decoders of damaged files raise anything."""
    try:
        yield
    except SlideError:
        raise
    except MemoryError as error:
        raise SlideError(f"{path}: does not fit into memory: {error}") from error
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise SlideError(f"{path}: cannot be read: {reason}; mend or remove the file") from error


def _open_png(path: Path, budget_bytes: int, _: ExitStack) -> Slide:
    with path.open("rb") as file:
        header = file.read(29)
    if not header.startswith(b"\x89PNG\r\n\x1a\n") or len(header) < 29:
        raise ValueError(f"not a PNG file, it begins with {header[:8]!r}; check how it was saved or downloaded")
    columns, rows, bits = struct.unpack(">IIB", header[16:25])
    _check_budget("the PNG", rows * columns * 4 * max(1, bits // 8), budget_bytes)
    pixels = imagecodecs.png_decode(path.read_bytes())
    return Slide(path=path, levels=(Level(array=pixels, axes="YXS"[: pixels.ndim]),))


def _open_tiff(path: Path, budget_bytes: int, stack: ExitStack) -> Slide:
    tiff = stack.enter_context(tifffile.TiffFile(path))
    if len(tiff.pages) == 0:
        raise ValueError("a TIFF header without an image behind it")
    series = tiff.series[0]
    for level in series.levels:
        _check_pages(level, path.stat().st_size, budget_bytes)
    return Slide(
        path=path,
        levels=tuple(Level(array=_tiff_array(level, budget_bytes, stack), axes=level.axes) for level in series.levels),
        pixel_size_um=_ome_pixel_size(tiff) or _tiff_pixel_size(tiff.pages.first),
    )


def _tiff_array(level: tifffile.TiffPageSeries, budget_bytes: int, stack: ExitStack) -> Array:
    """Return the pixels: kept in memory where that is little, decoded piece by piece where it is not."""
    if level.nbytes <= min(_KEPT_MB * 10**6, budget_bytes):
        return _Kept(level)
    store = stack.enter_context(level.aszarr(level=0))
    return zarr.open_array(store, mode="r")


class _Kept:
    """A level that is decoded whole when it is first read, so that opening a file costs its header alone."""

    def __init__(self, level: tifffile.TiffPageSeries) -> None:
        self.shape: tuple[int, ...] = tuple(level.shape)
        self.dtype: np.dtype[Any] = np.dtype(level.dtype)
        self._decode: Callable[[], Pixels] = level.asarray
        self._pixels: Pixels | None = None

    def __getitem__(self, key: Any) -> Any:
        if self._pixels is None:
            pixels = self._decode()
            if pixels.shape != self.shape:
                raise ValueError(f"decoded to shape {pixels.shape}, the header says {self.shape}")
            self._pixels = pixels
        return self._pixels[key]


def _check_pages(level: tifffile.TiffPageSeries, file_bytes: int, budget_bytes: int) -> None:
    """Refuse a file that is shorter than its header says, or whose pieces are larger than the budget."""
    if level.dtype is None or level.size == 0:
        raise ValueError(f"the image is empty: shape {level.shape}")
    for page in level.pages:
        if page is None:
            continue
        ends = (start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False))
        end = max(ends, default=0)
        if end > file_bytes:
            raise ValueError(
                f"the file is cut short: its data end at byte {end}, the file has {file_bytes}; copy it again"
            )
        keyframe: Any = page.keyframe
        piece = math.prod(keyframe.chunks) * level.dtype.itemsize
        _check_budget(f"a strip or tile of {' x '.join(map(str, keyframe.chunks))} px", piece, budget_bytes)
        if len(page.dataoffsets) < math.prod(keyframe.chunked):
            raise ValueError(
                f"the header lists {len(page.dataoffsets)} strips or tiles, "
                f"an image of {' x '.join(map(str, keyframe.shape))} needs {math.prod(keyframe.chunked)}"
            )


def _check_budget(what: str, needed_bytes: int, budget_bytes: int) -> None:
    if needed_bytes > budget_bytes:
        raise ValueError(
            f"{what} decodes to {needed_bytes // 10**6} MB, the limit is {budget_bytes // 10**6} MB "
            "(tiling.memory_mb); save it as a tiled TIFF, or raise the limit"
        )


def _ome_pixel_size(tiff: tifffile.TiffFile) -> PixelSize | None:
    """Return PhysicalSizeY and PhysicalSizeX of OME-XML in µm; None where they are missing or no positive numbers."""
    try:
        metadata = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"] if tiff.ome_metadata else None
        image = metadata[0] if isinstance(metadata, list) else metadata
        pixels = image["Pixels"] if image else {}
        sizes = [
            float(pixels[f"PhysicalSize{axis}"]) * _UNITS_UM[pixels.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "YX"
        ]
    except Exception:  # OME-XML of strangers is cut, nested or wrong in every way; the pixels are still good
        return None
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None


def _tiff_pixel_size(page: Any) -> PixelSize | None:
    """Return the pixel size by the resolution tags in µm, or by ImageJ's unit; None where it is that of a printer."""
    unit: Literal["cm", "inch"] | str | None = {2: "inch", 3: "cm"}.get(int(page.resolutionunit))
    imagej = page.parent.imagej_metadata
    if unit is None and imagej:
        unit = str(imagej.get("unit", "")).replace("\\u00B5", "µ")
    if unit not in _UNITS_UM or "XResolution" not in page.tags:
        return None
    columns_per_unit, rows_per_unit = page.resolution
    if min(columns_per_unit, rows_per_unit) <= 0:
        return None
    size = (_UNITS_UM[unit] / rows_per_unit, _UNITS_UM[unit] / columns_per_unit)
    return size if max(size) <= _LARGEST_PIXEL_UM else None


_OPENERS: dict[str, Callable[[Path, int, ExitStack], Slide]] = {
    ".tif": _open_tiff,
    ".tiff": _open_tiff,
    ".png": _open_png,
}
