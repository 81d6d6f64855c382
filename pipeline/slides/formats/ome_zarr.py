"""Read OME-Zarr 0.4 and 0.5 (zarr 2 and 3): a folder with a pyramid, or with several images (bioformats2raw)."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import zarr

from pipeline.base.arrays import Array
from pipeline.project.image_files import read_attributes
from pipeline.slides.formats.image import UNITS_UM, Image, PixelSize, Series, check_budget, pixel_size

log = logging.getLogger(__name__)

_EARLY_AXES = "tczyx"  # up to version 0.2 the axes were not stated


def open_ome_zarr(path: Path, budget_bytes: int, _: ExitStack) -> list[Series]:
    """Return the image of a folder, or its several images, named by their folders."""
    about = read_attributes(path)
    if "multiscales" in about:
        return [Series(name="", open=partial(_image, path, about, budget_bytes))]
    if "plate" in about:
        raise ValueError("a plate, not one image; put it into the folder of slides, which finds the images in it")
    folders = sorted((child for child in path.iterdir() if child.name.isdigit()), key=lambda child: int(child.name))
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
    levels = [
        level
        for number, dataset in enumerate(multiscale["datasets"])
        if (level := _open_level(folder, str(dataset["path"]), number == 0, budget_bytes)) is not None
    ]
    return Image(
        levels=tuple(levels),
        axes="".join(str(axis["name"]).upper() for axis in axes),
        pixel_size_um=_pixel_size(multiscale, axes),
        channel_names=_channel_names(about),
    )


def _open_level(folder: Path, name: str, finest: bool, budget_bytes: int) -> Array | None:
    """Open the array of one resolution; None, with a warning, if a coarser one is listed but missing."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"level {name!r} is outside the folder of the image; save the image again")
    if not finest and not place.is_dir():
        log.warning("%s: level %s is listed, but missing; it is ignored", folder, name)
        return None
    _refuse_pickles(place)
    array = zarr.open_array(place, mode="r")
    piece = math.prod(array.chunks) * array.dtype.itemsize
    check_budget(f"a chunk of {' x '.join(map(str, array.chunks))} px", piece, budget_bytes)
    return array


def _refuse_pickles(folder: Path) -> None:
    """Refuse codecs that run code from the file."""
    for name in ("zarr.json", ".zarray"):
        if (folder / name).is_file() and "pickle" in (folder / name).read_text(encoding="utf-8").lower():
            raise ValueError("its chunks are pickled, which can run code; save it with another codec")


def _pixel_size(multiscale: dict[str, Any], axes: list[dict[str, Any]]) -> PixelSize | None:
    """Return the scales of rows and columns in µm; None if a unit or a usable scale is missing."""
    try:
        size = []
        for name in "yx":
            number, axis = next((number, axis) for number, axis in enumerate(axes) if axis["name"] == name)
            scales = [
                step["scale"][number]
                for steps in (multiscale["datasets"][0], multiscale)
                for step in steps.get("coordinateTransformations", ())
                if step["type"] == "scale"
            ]
            size.append(math.prod(map(float, scales)) * UNITS_UM[axis["unit"]] if scales else math.nan)
    except (KeyError, IndexError, StopIteration, TypeError, ValueError):
        return None
    return pixel_size(*size)


def _channel_names(about: dict[str, Any]) -> tuple[str, ...]:
    try:
        channels = about["omero"]["channels"]
        return tuple(str(channel.get("label", number)) for number, channel in enumerate(channels))
    except (KeyError, TypeError, AttributeError):
        return ()
