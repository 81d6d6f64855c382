"""What every reader returns: the images of a file (series, scenes, positions), each an array with named axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.base.arrays import Array

PixelSize = tuple[float, float]

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
AXES = "TCZYXS"  # time, channel, plane, row, column, sample of a colour
UNITS_UM = {
    "pm": 1e-6,
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "Å": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "inch": 25_400.0,
}


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
    channel_names : tuple of str
        In the order of the file; empty if it has no names.
    """

    levels: tuple[Array, ...]
    axes: str
    pixel_size_um: PixelSize | None = None
    channel_names: tuple[str, ...] = ()

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


def pixel_size(rows_um: float, columns_um: float) -> PixelSize | None:
    """Return a pixel size, None if it is not two positive numbers."""
    sizes = (float(rows_um), float(columns_um))
    return sizes if all(math.isfinite(size) and size > 0 for size in sizes) else None


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
