"""The planes of an image that a slide is made of: which channels, which z, which time point.

An image of any number of planes goes in, levels of (channel, row, column) pixels come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats.image import Image, Series

Pixels = NDArray[Any]


class Level(Protocol):
    """One resolution of a slide."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        ...

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a region inside the level as (channel, row, column)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Planes:
    """The chosen planes of one resolution; of several z the maximum of each pixel."""

    array: Array
    axes: str
    channel_axis: str
    picked: tuple[int, ...]
    z: range
    t: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.array.shape[self.axes.index("Y")], self.array.shape[self.axes.index("X")]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.picked)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self.array.dtype

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a region inside the level as (channel, row, column)."""
        highest = self._read(rows, columns, self.z[0])
        for z in self.z[1:]:
            np.maximum(highest, self._read(rows, columns, z), out=highest)
        return highest

    def _read(self, rows: slice, columns: slice, z: int) -> Pixels:
        place: dict[str, int | slice] = {"Y": rows, "X": columns, "Z": z, "T": self.t}
        if self.channel_axis == "S":  # samples of a colour are stored, and decoded, together
            return self._block(place | {"S": slice(None)}, "SYX")[list(self.picked)]
        return np.stack([self._block(place | {"C": channel}, "YX") for channel in self.picked])

    def _block(self, place: dict[str, int | slice], order: str) -> Pixels:
        key = tuple(place.get(axis, 0) for axis in self.axes)
        kept = [axis for axis, part in zip(self.axes, key, strict=True) if isinstance(part, slice)]
        return np.asarray(self.array[key]).transpose([kept.index(axis) for axis in order])


def pick_series(series: Sequence[Series], view: ImageConfig | None, path: Path) -> Series:
    """Return the series that ``image.series`` chooses, the first without a view."""
    names = [one.name for one in series]
    return series[_index(view.series if view else 0, names, len(series), path, "series", "image.series")]


def pick_planes(image: Image, view: ImageConfig | None, path: Path) -> tuple[list[Level], tuple[str, ...]]:
    """Return all resolutions of the chosen planes, and the names of their channels.

    Without a view all channels, and the one plane there is.

    Raises
    ------
    SlideError
        If a choice is not there, or one is needed.
    """
    names = image.channel_names if len(image.channel_names) == image.channels else ()
    wanted = view.channels if view else range(image.channels)
    picked = tuple(_index(one, names, image.channels, path, "channel", "image.channels") for one in wanted)
    z = _plane(view.z if view else None, image.length("Z"), path, "Z", "image.z (0 to {last}, or max)")
    t = _plane(view.t if view else None, image.length("T"), path, "T", "image.t (0 to {last})")
    levels: list[Level] = [
        Planes(array=array, axes=image.axes, channel_axis=image.channel_axis, picked=picked, z=z, t=t[0])
        for array in image.levels
    ]
    return levels, tuple(names[index] if names else str(index) for index in picked)


def _plane(wanted: int | str | None, length: int, path: Path, axis: str, setting: str) -> range:
    setting = setting.format(last=length - 1)
    if wanted == "max":
        return range(length)
    if wanted is None and length > 1:
        raise SlideError(f"{path}: {length} planes along axis {axis}; choose with {setting}")
    index = int(wanted or 0)
    if index >= length:
        raise SlideError(
            f"{path}: plane {index} of axis {axis} asked for, the file has {length}; choose with {setting}"
        )
    return range(index, index + 1)


def _index(wanted: int | str, names: Sequence[str], length: int, path: Path, what: str, setting: str) -> int:
    """Return the place of a name or an index."""
    if isinstance(wanted, str):
        if names.count(wanted) != 1:
            known = ", ".join(map(repr, names)) if any(names) else "none"
            raise SlideError(
                f"{path}: {what} {wanted!r} asked for ({setting}), which the file has {names.count(wanted)} times; "
                f"names there are: {known}; take one of them, or a number from 0 to {length - 1}"
            )
        return names.index(wanted)
    if wanted >= length:
        raise SlideError(
            f"{path}: {what} {wanted} asked for ({setting}, counted from 0), the file has {length}; "
            "change the setting, or remove the file"
        )
    return wanted
