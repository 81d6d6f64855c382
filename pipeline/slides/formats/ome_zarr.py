"""Read OME-Zarr 0.4 and 0.5 (zarr 2 and 3): a folder with a pyramid, or with several images (bioformats2raw)."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.base.arrays import LazyArray
from pipeline.base.errors import reason_of
from pipeline.project.drop.image_files import read_attributes, read_metadata, why_not_inside
from pipeline.slides.formats.image import (
    Image,
    PixelSize,
    Series,
    check_budget,
    ignored_size,
    pixel_size,
    unit_um,
    z_step,
)
from pipeline.slides.formats.zarr_files import ZarrFiles

log = logging.getLogger(__name__)

_EARLY_AXES = "tczyx"  # up to version 0.2 the axes were not stated


def open_ome_zarr(path: Path, budget_bytes: int, _: ExitStack) -> list[Series]:
    """Return the image of a folder, or its several images, named by their folders."""
    about = read_attributes(path)
    if "multiscales" in about:
        return [Series(name="", open=partial(_image, path, about, budget_bytes))]
    if "plate" in about:
        raise ValueError("a plate, not one image; put it into the folder of slides, which finds the images in it")
    folders = sorted((child for child in path.iterdir() if child.name.isdecimal()), key=lambda child: int(child.name))
    if reasons := [reason for folder in folders if (reason := why_not_inside(folder, path))]:
        raise ValueError(reasons[0])
    found = [(folder.name, folder, read_attributes(folder)) for folder in folders]
    series = [
        Series(name=name, open=partial(_image, folder, attributes, budget_bytes))
        for name, folder, attributes in found
        if "multiscales" in attributes
    ]
    if not series:
        raise ValueError("no `multiscales` in its metadata, so it is no OME-Zarr image; save it again as OME-Zarr")
    return series


def _image(folder: Path, about: dict[str, Any], budget_bytes: int) -> Image:
    multiscale = about["multiscales"][0]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale.get("axes", _EARLY_AXES)]
    levels = {
        place: level
        for number, dataset in enumerate(multiscale["datasets"])
        if (level := _open_level(place := folder / str(dataset["path"]), folder, number == 0, budget_bytes)) is not None
    }
    names = "".join(str(axis["name"]).upper() for axis in axes)
    size, warnings = _pixel_size(multiscale, axes)
    return Image(
        levels=tuple(_pixels(array, place, folder, names.find("X")) for place, array in levels.items()),
        axes=names,
        pixel_size_um=size,
        z_step_um=_z_step(multiscale, axes),
        warnings=warnings,
        channel_names=_channel_names(about),
        missing=partial(_missing, list(levels.items()), names),
    )


def _missing(
    levels: list[tuple[Path, zarr.Array[Any]]], axes: str, level: int, planes: Mapping[str, int]
) -> tuple[int, int]:
    """Count the chunks of the chosen planes that are not there; legally they hold the fill value."""
    place, array = levels[level]
    sides = array.shards or array.chunks
    grid = [
        (planes.get(axis, 0) // side,) if axis not in "YX" else range(-(-length // side))
        for axis, length, side in zip(axes, array.shape, sides, strict=True)
    ]
    files = [place / array.metadata.encode_chunk_key(chunk) for chunk in itertools.product(*grid)]
    absent = sum(not file.is_file() for file in files)
    if absent and array.metadata.fill_value is None:
        raise ValueError(
            f"{absent} of {len(files)} chunks are not there, and no fill value says what they are; copy it again"
        )
    return absent, len(files)


def _open_level(place: Path, folder: Path, finest: bool, budget_bytes: int) -> zarr.Array[Any] | None:
    """Open the array of one resolution; None, with a warning, if a coarser one is listed but missing."""
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"level {str(place.relative_to(folder))!r} is outside the folder of the image; save the image again"
        )
    if not finest and not place.is_dir():
        log.warning("%s is listed, but missing; it is ignored", place)
        return None
    _refuse_pickles(place)
    files = ZarrFiles(place, slide=folder, budget_bytes=budget_bytes)
    try:
        array = zarr.open_array(files, mode="r")
    except Exception as error:  # damaged metadata raise anything
        name = "zarr.json" if (place / "zarr.json").exists() else ".zarray"
        raise ValueError(f"{place.relative_to(folder) / name}: {reason_of(error)}") from error
    if array.shards is None and array.compressors:
        last: Any = array.compressors[-1]
        files.codec = getattr(last, "codec_id", None) or last.to_dict()["name"]
    piece = math.prod(array.chunks) * array.dtype.itemsize
    check_budget(f"a chunk of {' x '.join(map(str, array.chunks))} px", piece, budget_bytes)
    return array


def _pixels(array: zarr.Array[Any], place: Path, folder: Path, x_axis: int) -> LazyArray:
    """Return the pixels of a resolution; if a chunk cannot be decoded, a ValueError names its file."""

    def read(*key: Any) -> NDArray[Any]:
        try:
            return np.asarray(array[key])
        except Exception as error:  # damaged data raise anything
            file = _unreadable(array, place, key) or place
            raise ValueError(f"{file.relative_to(folder)}: {reason_of(error)}") from error

    return LazyArray(array.shape, array.dtype, read, in_strips=array.chunks[x_axis] >= array.shape[x_axis])


def _unreadable(array: zarr.Array[Any], place: Path, key: Sequence[Any]) -> Path | None:
    """Return the first file of a region that cannot be read alone."""
    sides = array.shards or array.chunks
    ends = [(part.start, part.stop) if isinstance(part, slice) else (part, part + 1) for part in key]
    grid = [range(start // side, -(-stop // side)) for (start, stop), side in zip(ends, sides, strict=True)]
    for number in itertools.product(*grid):
        parts = zip(number, sides, ends, strict=True)
        try:
            array[tuple(slice(max(start, at * side), min(stop, (at + 1) * side)) for at, side, (start, stop) in parts)]
        except Exception:
            return place / array.metadata.encode_chunk_key(number)
    return None


def _refuse_pickles(folder: Path) -> None:
    """Refuse codecs that run code from the file."""
    for name in ("zarr.json", ".zarray", ".zattrs"):
        if (folder / name).is_file() and "pickle" in json.dumps(read_metadata(folder / name)).lower():
            raise ValueError("its chunks are pickled, which can run code; save it with another codec")


def _pixel_size(multiscale: dict[str, Any], axes: list[dict[str, Any]]) -> tuple[PixelSize | None, tuple[str, ...]]:
    """Return the scales of rows and columns in µm; None if a usable scale or its unit is missing, with a warning."""
    try:
        sides = [_scale(multiscale, axes, name) for name in "yx"]
    except (AttributeError, KeyError, IndexError, StopIteration, TypeError, ValueError):
        return None, ()
    size = pixel_size(*(scale * (unit_um(unit) or 0) for scale, unit in sides))
    if size or all(scale == 1 and not unit for scale, unit in sides):
        return size, ()
    return None, (ignored_size(" x ".join(f"{scale:g} {unit or 'without unit'}" for scale, unit in sides)),)


def _z_step(multiscale: dict[str, Any], axes: list[dict[str, Any]]) -> float | None:
    try:
        scale, unit = _scale(multiscale, axes, "z")
    except (AttributeError, KeyError, IndexError, StopIteration, TypeError, ValueError):
        return None
    return z_step(scale * (unit_um(unit) or 0))


def _scale(multiscale: dict[str, Any], axes: list[dict[str, Any]], name: str) -> tuple[float, str]:
    """Return the scale of the finest level along an axis, 1 if there is none, and its unit."""
    number, axis = next((number, axis) for number, axis in enumerate(axes) if axis["name"] == name)
    scales = [
        float(step["scale"][number])
        for steps in (multiscale["datasets"][0], multiscale)
        for step in steps.get("coordinateTransformations", ())
        if step["type"] == "scale"
    ]
    return math.prod(scales), str(axis.get("unit") or "") if scales else ""


def _channel_names(about: dict[str, Any]) -> tuple[str, ...]:
    try:
        channels = about["omero"]["channels"]
        return tuple(str(channel.get("label", number)) for number, channel in enumerate(channels))
    except (KeyError, TypeError, AttributeError):
        return ()
