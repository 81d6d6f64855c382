"""Choose the planes of an image: which series, channels, z and time point.

An image with any number of planes goes in, its resolutions as (channel, row, column) arrays come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
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
    """Return the series that ``image.series`` chooses, else the first."""
    names, wanted = [one.name for one in series], view.series if view else None
    return series[_index(wanted or 0, names, len(series), path, "series", "image.series")]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane of a stack whose planes are segmented one by one; or a slide that is not read so.

    Attributes
    ----------
    view : ImageConfig
        Chooses this plane.
    place : dict of int
        Its number along ``t``, ``z`` or both, those that are ``each``; empty for a slide that is not read so.
    counts : dict of int
        How many planes there are along these axes.
    """

    view: ImageConfig
    place: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def in_file(self) -> dict[str, int]:
        """Its ``z`` and ``t`` in the file, for programs that draw on it; empty for a slide that is not read so."""
        chosen = {axis: getattr(self.view, axis) for axis in ("z", "t")}
        return {axis: at if isinstance(at, int) else 0 for axis, at in chosen.items()} if self.place else {}


def planes_in(image: Image, view: ImageConfig) -> list[Plane]:
    """Return the planes of an image that a view reads one by one: one, if nothing in it is ``each``."""
    counts = {axis: image.length(axis.upper()) for axis in view.each}
    places = (dict(zip(counts, numbers, strict=True)) for numbers in product(*map(range, counts.values())))
    return [Plane(view=view.model_copy(update=place), place=place, counts=counts) for place in places]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The planes of an image that are read; of several ``z`` the maximum of each pixel."""

    image: Image
    channels: Sequence[int]
    z: Sequence[int]
    t: int

    @property
    def levels(self) -> tuple[LazyArray, ...]:
        """All resolutions as (channel, row, column) arrays."""
        return tuple(self._level(array) for array in self.image.levels)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the chosen channels; numbers if the file has no names."""
        names = _names_of(self.image)
        return tuple(names[index] if names else str(index) for index in self.channels)

    def count_missing(self, level: int) -> tuple[int, int]:
        """Return how many tiles or chunks of these planes the file does not store, and of how many."""
        channels = set(self.channels) if self.image.channel_axis == "C" else {0}  # colours are stored together
        places = [{"C": channel, "Z": z, "T": self.t} for channel in channels for z in self.z]
        absent, total = map(sum, zip(*(self.image.missing(level, place) for place in places), strict=True))
        return absent, total

    def _level(self, array: Array) -> LazyArray:
        image = self.image

        def read(wanted: slice, rows: slice, columns: slice) -> Pixels:
            return reduce(np.maximum, (read_z(rows, columns, plane) for plane in self.z))[wanted]

        def read_z(rows: slice, columns: slice, plane: int) -> Pixels:
            place: dict[str, int | slice] = {"Y": rows, "X": columns, "Z": plane, "T": self.t}
            if image.channel_axis == "S":  # samples of a colour are stored, and decoded, together
                block = _block(array, image.axes, place | {"S": slice(None)}, "SYX")
                return block if list(self.channels) == list(range(len(block))) else block[list(self.channels)]
            planes = [_block(array, image.axes, place | {"C": channel}, "YX") for channel in self.channels]
            return planes[0][None] if len(planes) == 1 else np.stack(planes)

        rows, columns = (array.shape[image.axes.index(axis)] for axis in "YX")
        stored = getattr(array, "chunks", None)  # of a TIFF that is read through Zarr
        in_strips = getattr(array, "in_strips", stored is not None and stored[image.axes.index("X")] >= columns)
        dtype = array.dtype.newbyteorder("=")
        return LazyArray((len(self.channels), rows, columns), dtype, read, in_strips)


def pick_planes(image: Image, view: ImageConfig | None, path: Path, plane: Plane | None = None) -> Choice:
    """Return the planes that a view chooses; without one all channels, and the only plane, or that of a label image.

    Parameters
    ----------
    plane : Plane or None
        Of the slide that a label image belongs to, which has the same planes; not used with a view.

    Raises
    ------
    SlideError
        If the file does not have what the view chooses, or has several planes and the view chooses none.
    """
    if view is None and plane and plane.counts:
        return _pick_label_plane(image, path, plane)
    also = "; if its pages are channels, set image.pages: channels" if image.has_bare_pages else ""
    if image.has_bare_pages and view and view.pages == "channels":
        image, also = _pages_as(image, "C"), ""
    names = _names_of(image)
    wanted = view.channels if view else range(image.channels)
    channels = [_index(one, names, image.channels, path, "channel", "image.channels", also) for one in wanted]
    if view is None and (axis := next((axis for axis in "ZT" if image.length(axis) > 1), "")):
        raise SlideError(
            f"{path}: {image.length(axis)} planes along axis {axis}; a label image has one: save that of its slide"
        )
    last = {axis: image.length(axis) - 1 for axis in "ZT"}
    z = _plane(view.z if view else None, last["Z"] + 1, path, "Z", f"image.z (0 to {last['Z']}, max or each)", also)
    t = _plane(view.t if view else None, last["T"] + 1, path, "T", f"image.t (0 to {last['T']}, or each)")
    return Choice(image=image, channels=channels, z=z, t=t[0])


def _pick_label_plane(image: Image, path: Path, plane: Plane) -> Choice:
    """Return the plane of a label image that is at the place of a plane of its slide."""
    if image.has_bare_pages and list(plane.counts) == ["t"]:
        image = _pages_as(image, "T")
    counts = {"t": 1, "z": 1} | plane.counts
    for axis, count in counts.items():
        if (found := image.length(axis.upper())) != count:
            raise SlideError(
                f"{path}: its length along axis {axis.upper()} is {found}, that of the mask of its slide {count} "
                f"(image.{axis}); save the labels of all planes that are segmented, and no others"
            )
    z, t = (plane.place.get(axis, 0) for axis in "zt")
    return Choice(image=image, channels=range(image.channels), z=[z], t=t)


def _names_of(image: Image) -> tuple[str, ...]:
    return image.channel_names if len(image.channel_names) == image.channels else ()


def _pages_as(image: Image, axis: str) -> Image:
    """Return an image whose pages, that it does not name, are along this axis instead of Z."""

    def missing(level: int, planes: Mapping[str, int]) -> tuple[int, int]:
        return image.missing(level, {"Z": planes[axis]})

    return replace(image, axes=image.axes.replace("Z", axis), missing=missing)


def _block(array: Array, axes: str, place: dict[str, int | slice], order: str) -> Pixels:
    """Return the pixels at a place (0 along the axes that it leaves out), their axes in the ``order`` given.

    They have the byte order of this machine, whatever that of the file: PyTorch takes no other.
    """
    key = tuple(place.get(axis, 0) for axis in axes)
    kept = [axis for axis, part in zip(axes, key, strict=True) if isinstance(part, slice)]
    pixels = np.asarray(array[key], array.dtype.newbyteorder("="))
    return pixels.transpose([kept.index(axis) for axis in order])


def _plane(wanted: int | str | None, length: int, path: Path, axis: str, setting: str, also: str = "") -> range:
    if wanted == "max":
        return range(length)
    if wanted is None and length > 1:
        raise SlideError(f"{path}: {length} planes along axis {axis}; choose with {setting}{also}")
    if wanted == "each" and length > 1:
        raise SlideError(
            f"{path}: {length} planes along axis {axis}, and a single one is read here; image.{axis.lower()}: each is "
            "for the slides of a run: save the plane as a file of its own, or choose its number"
        )
    index = 0 if wanted == "each" else int(wanted or 0)
    if index >= length:
        raise SlideError(
            f"{path}: no plane {index} along axis {axis}, the file has {length}; choose with {setting}{also}"
        )
    return range(index, index + 1)


def _index(
    wanted: int | str, names: Sequence[str], length: int, path: Path, what: str, setting: str, also: str = ""
) -> int:
    """Return the index of a name, or the index itself; refuse what is not there."""
    if isinstance(wanted, str):
        if names.count(wanted) != 1:
            known = ", ".join(map(repr, names)) if any(names) else "none"
            raise SlideError(
                f"{path}: {what} {wanted!r} ({setting}) is in the file {names.count(wanted)} times; "
                f"its names: {known}; choose one of them, or a number from 0 to {length - 1}{also}"
            )
        return names.index(wanted)
    if wanted >= length:
        raise SlideError(
            f"{path}: no {what} {wanted} ({setting}, counted from 0), the file has {length}; "
            f"change the setting, or remove the file{also}"
        )
    return wanted
