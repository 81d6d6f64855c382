"""What every reader returns: the images of a file (series, scenes, positions), each an array with named axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.base.arrays import Array

PixelSize = tuple[float, float]

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
AXES = "TCZYXS"  # time, channel, plane, row, column, sample of a colour
# SI prefixes by symbol and by name. Both letters for micro are in use: U+00B5 and U+03BC.
_PREFIXES = {
    **{"Z": 1e27, "E": 1e24, "P": 1e21, "T": 1e18, "G": 1e15, "M": 1e12, "k": 1e9, "h": 1e8, "da": 1e7, "": 1e6},
    **{"d": 1e5, "c": 1e4, "m": 1e3, "µ": 1.0, "μ": 1.0, "u": 1.0, "n": 1e-3, "p": 1e-6, "f": 1e-9, "a": 1e-12},
}
_NAMES = {
    **{"zetta": "Z", "exa": "E", "peta": "P", "tera": "T", "giga": "G", "mega": "M", "kilo": "k", "hecto": "h"},
    **{"deca": "da", "": "", "deci": "d", "centi": "c", "milli": "m", "micro": "u", "nano": "n", "pico": "p"},
    **{"femto": "f", "atto": "a"},
}
_OTHER_UM = {
    **dict.fromkeys(("micron", "microns"), 1.0),
    **dict.fromkeys(("angstrom", "angstroms", "ångström", "\u00c5", "\u212b"), 1e-4),  # two letters that look alike
    **dict.fromkeys(("in", "inch", "inches", '"'), 25_400.0),
    **dict.fromkeys(("ft", "foot", "feet"), 304_800.0),
    **dict.fromkeys(("yd", "yard", "yards"), 914_400.0),
    **dict.fromkeys(("thou", "mil"), 25.4),
    **{"li": 25_400 / 12, "line": 25_400 / 12, "pt": 25_400 / 72},
}
_SQUARE = 1e-3  # largest relative difference of the sides of a square pixel
_LONGEST_SYMBOL = 3  # longer ones are names, in which case does not matter
_METRES = ("meter", "meters", "metre", "metres")
_UNITS_UM = (
    _OTHER_UM
    | {f"{prefix}m": size for prefix, size in _PREFIXES.items()}
    | {f"{name}{metre}": _PREFIXES[prefix] for name, prefix in _NAMES.items() for metre in _METRES}
)


Missing = Callable[[int, Mapping[str, int]], tuple[int, int]]


def _none_missing(_level: int, _planes: Mapping[str, int]) -> tuple[int, int]:
    return 0, 1


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of a file.

    Attributes
    ----------
    levels : tuple of Array
        Its resolutions, finest first, all with the same axes; indexed by integers and slices.
    axes : str
        A letter per axis: Y, X, and any of T, C (or S, samples of a colour), Z. Others have length 1.
    pixel_size_um : (row, column) or None
        Of the finest level, µm.
    z_step_um : float or None
        Distance between the planes of a stack, µm; None if it is not known.
    channel_names : tuple of str
        In the order of the file; empty if it has no names.
    numbers : Image or None
        The numbers that the file stores, where they are no brightness (palettes, white as 0): what a label image means.
    lossy : str
        Name of a compression that changes numbers; empty if they are kept.
    has_bare_pages : bool
        Whether Z are the pages of a file that does not say what they are.
    warnings : tuple of str
        What the file says that was not followed.
    missing : callable
        From a level and its planes (axis -> index) to how many of their tiles or chunks are not stored, and of how
        many. Raises ValueError if the format does not say what their pixels are.
    """

    levels: tuple[Array, ...]
    axes: str
    pixel_size_um: PixelSize | None = None
    z_step_um: float | None = None
    channel_names: tuple[str, ...] = ()
    numbers: Image | None = None
    lossy: str = ""
    has_bare_pages: bool = False
    warnings: tuple[str, ...] = ()
    missing: Missing = _none_missing

    def __post_init__(self) -> None:
        for level in self.levels:
            _check_level(level.shape, level.dtype, self.axes)
            if level.dtype != self.levels[0].dtype or any(
                self._length_in(level, axis) != self.length(axis) for axis in self.axes if axis not in "YX"
            ):
                raise ValueError("the resolutions of the image differ in type or in planes; save it again")

    def length(self, axis: str) -> int:
        """Return the number of planes along an axis, 1 if there is no such axis."""
        return self._length_in(self.levels[0], axis)

    def _length_in(self, level: Array, axis: str) -> int:
        return level.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def channel_axis(self) -> str:
        """The axis of channels: S for samples of a colour, else C."""
        return "S" if self.length("S") > 1 else "C"

    @property
    def channels(self) -> int:
        """Number of channels (or samples of a colour)."""
        return self.length(self.channel_axis)


@dataclass(frozen=True, kw_only=True)
class Series:
    """An image of a file that is not opened yet; its name may be empty."""

    name: str
    open: Callable[[], Image]


def check_budget(what: str, needed_bytes: int, budget_bytes: int) -> None:
    """Refuse a piece of a file that decodes to more than ``tiling.memory_mb``."""
    if needed_bytes > budget_bytes:
        raise ValueError(
            f"{what} decodes to {needed_bytes // 10**6} MB, the limit is {budget_bytes // 10**6} MB "
            "(tiling.memory_mb); save it as a tiled TIFF, or raise the limit"
        )


def unit_um(name: str) -> float | None:
    """Return a unit of length in µm, None if it is not known.

    >>> unit_um("µm"), unit_um("nanometre"), unit_um("inch"), unit_um("pixel")
    (1.0, 0.001, 25400.0, None)
    """
    name = name.strip()
    return _UNITS_UM.get(name, _UNITS_UM.get(name.lower()) if len(name) > _LONGEST_SYMBOL else None)


def orientation_warning(orientation: object) -> tuple[str, ...]:
    """Return what to know of the orientation (1 to 8) that TIFF or EXIF states; nothing if it is 1 or unknown."""
    if orientation in range(2, 9):
        return (f"the file asks to be shown rotated or mirrored (orientation {orientation}); read as it is stored",)
    return ()


def side_of_square(size: PixelSize) -> float | None:
    """Return the side of a pixel in µm; None if its sides differ by more than 0.1 %."""
    return math.sqrt(math.prod(size)) if math.isclose(*size, rel_tol=_SQUARE) else None


def pixel_size(rows_um: float, columns_um: float) -> PixelSize | None:
    """Return a pixel size, None if it is not two positive numbers."""
    sizes = (float(rows_um), float(columns_um))
    return sizes if all(math.isfinite(size) and size > 0 for size in sizes) else None


def z_step(um: float) -> float | None:
    """Return a distance between planes, None if it is no positive number."""
    return float(um) if math.isfinite(um) and um > 0 else None


def ignored_size(stated: str) -> str:
    """Return the warning about a pixel size in a file that is not used."""
    return f"it states a pixel size that is ignored: {stated}"


def _check_level(shape: tuple[int, ...], dtype: np.dtype[Any], axes: str) -> None:
    if not {"Y", "X"} <= set(axes) or len(axes) != len(shape) or len(set(axes)) != len(axes):
        raise ValueError(f"axes {axes} of shape {shape} are not those of an image; save it with axes Y and X")
    if min(shape) < 1:
        raise ValueError(f"the image is empty: shape {shape} ({axes}); copy or save it again")
    if dtype.name not in DTYPES:
        raise ValueError(f"pixels of type {dtype} cannot be read; allowed: {', '.join(DTYPES)}")
    long = {axis: length for axis, length in zip(axes, shape, strict=True) if length > 1}
    if {"C", "S"} <= set(long):
        raise ValueError(f"{long['C']} channels of {long['S']} colours each; save the one to segment as its own file")
    if unknown := sorted(set(long) - set(AXES)):
        raise ValueError(f"{long[unknown[0]]} planes along axis {unknown[0]}; save the one to segment as its own file")
