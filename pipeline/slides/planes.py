"""Choose the planes of an image: which series, channels, z and time point.

An image with any number of planes goes in, its resolutions as (channel, row, column) arrays come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats.image import Image, Series

Pixels = NDArray[Any]


def pick_series(series: Sequence[Series], view: ImageConfig | None, path: Path) -> Series:
    """Return the series that ``image.series`` chooses, the first without a view."""
    names = [one.name for one in series]
    return series[_index(view.series if view else 0, names, len(series), path, "series", "image.series")]


def pick_planes(image: Image, view: ImageConfig | None, path: Path) -> tuple[list[LazyArray], tuple[str, ...]]:
    """Return all resolutions of the chosen planes as (channel, row, column) arrays, and the names of their channels.

    Without a view: all channels, and the only plane.

    Raises
    ------
    SlideError
        If the file does not have what the view chooses, or has several planes and the view chooses none.
    """
    names = image.channel_names if len(image.channel_names) == image.channels else ()
    wanted = view.channels if view else range(image.channels)
    channels = [_index(one, names, image.channels, path, "channel", "image.channels") for one in wanted]
    z = _plane(view.z if view else None, image.length("Z"), path, "Z", "image.z (0 to {last}, or max)")
    t = _plane(view.t if view else None, image.length("T"), path, "T", "image.t (0 to {last})")
    levels = [_chosen(array, image, channels, z, t[0]) for array in image.levels]
    return levels, tuple(names[index] if names else str(index) for index in channels)


def _chosen(array: Array, image: Image, channels: list[int], z: range, t: int) -> LazyArray:
    """Return the chosen channels of one resolution; of several z the maximum of each pixel."""

    def read(wanted: slice, rows: slice, columns: slice) -> Pixels:
        highest = read_z(rows, columns, z[0])
        for plane in z[1:]:
            np.maximum(highest, read_z(rows, columns, plane), out=highest)
        return highest[wanted]

    def read_z(rows: slice, columns: slice, plane: int) -> Pixels:
        place: dict[str, int | slice] = {"Y": rows, "X": columns, "Z": plane, "T": t}
        if image.channel_axis == "S":  # samples of a colour are stored, and decoded, together
            return _block(array, image.axes, place | {"S": slice(None)}, "SYX")[channels]
        return np.stack([_block(array, image.axes, place | {"C": channel}, "YX") for channel in channels])

    rows, columns = (array.shape[image.axes.index(axis)] for axis in "YX")
    return LazyArray((len(channels), rows, columns), array.dtype, read)


def _block(array: Array, axes: str, place: dict[str, int | slice], order: str) -> Pixels:
    """Return the pixels at a place (0 along the axes that it leaves out), their axes in the ``order`` given."""
    key = tuple(place.get(axis, 0) for axis in axes)
    kept = [axis for axis, part in zip(axes, key, strict=True) if isinstance(part, slice)]
    return np.asarray(array[key]).transpose([kept.index(axis) for axis in order])


def _plane(wanted: int | str | None, length: int, path: Path, axis: str, setting: str) -> range:
    setting = setting.format(last=length - 1)
    if wanted == "max":
        return range(length)
    if wanted is None and length > 1:
        raise SlideError(f"{path}: {length} planes along axis {axis}; choose with {setting}")
    index = int(wanted or 0)
    if index >= length:
        raise SlideError(f"{path}: no plane {index} along axis {axis}, the file has {length}; choose with {setting}")
    return range(index, index + 1)


def _index(wanted: int | str, names: Sequence[str], length: int, path: Path, what: str, setting: str) -> int:
    """Return the index of a name, or the index itself; refuse what is not there."""
    if isinstance(wanted, str):
        if names.count(wanted) != 1:
            known = ", ".join(map(repr, names)) if any(names) else "none"
            raise SlideError(
                f"{path}: {what} {wanted!r} ({setting}) is in the file {names.count(wanted)} times; "
                f"its names: {known}; choose one of them, or a number from 0 to {length - 1}"
            )
        return names.index(wanted)
    if wanted >= length:
        raise SlideError(
            f"{path}: no {what} {wanted} ({setting}, counted from 0), the file has {length}; "
            "change the setting, or remove the file"
        )
    return wanted
