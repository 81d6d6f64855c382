"""Read Zeiss CZI with the package pylibCZIrw: scenes are series, a region is decoded from the tiles that it touches."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pylibCZIrw import czi

from pipeline.base.arrays import LazyArray
from pipeline.slides.formats.image import Image, PixelSize, Series, pixel_size, z_step

_TYPES = {
    "Gray8": np.uint8,
    "Gray16": np.uint16,
    "Gray32Float": np.float32,
    "Bgr24": np.uint8,
    "Bgr48": np.uint16,
    "Bgr96Float": np.float32,
}


def open_czi(path: Path, _: int, stack: ExitStack) -> list[Series]:
    """Return the scenes of a CZI file; all of it as one series if it has none."""
    file = stack.enter_context(czi.open_czi(str(path)))
    scenes = file.scenes_bounding_rectangle_no_pyramid
    if not scenes:
        return [Series(name="", open=partial(_image, file, None, file.total_bounding_rectangle_no_pyramid))]
    return [
        Series(name=f"scene {scene}", open=partial(_image, file, scene, box)) for scene, box in sorted(scenes.items())
    ]


def _image(file: czi.CziReader, scene: int | None, box: czi.Rectangle) -> Image:
    lengths = {axis: stop - start for axis, (start, stop) in file.total_bounding_box_no_pyramid.items()}
    if unknown := sorted(axis for axis in set(lengths) - set("TCZYXS") if lengths[axis] > 1):
        raise ValueError(f"{lengths[unknown[0]]} planes along axis {unknown[0]}; save the one to segment as a file")
    about = file.metadata.get("ImageDocument", {}).get("Metadata", {})
    return Image(
        levels=(_scene(file, scene, box, (lengths["T"], lengths["C"], lengths["Z"])),),
        axes="TCZYXS",
        pixel_size_um=_pixel_size(about),
        z_step_um=_z_step(about),
        channel_names=_channel_names(about) if lengths["C"] > 1 else (),
    )


def _scene(file: czi.CziReader, scene: int | None, box: czi.Rectangle, stacks: tuple[int, int, int]) -> LazyArray:
    """Return a scene as an array (time, channel, plane, row, column, sample of a colour)."""
    kinds = sorted(set(file.pixel_types.values()))
    if len(kinds) != 1 or kinds[0] not in _TYPES:
        raise ValueError(f"pixels of type {', '.join(kinds)} cannot be read; allowed: one of {', '.join(_TYPES)}")
    is_colour = kinds[0].startswith("Bgr")

    def read(time: int, channel: int, plane: int, rows: slice, columns: slice, samples: slice) -> NDArray[Any]:
        region = (box.x + columns.start, box.y + rows.start, columns.stop - columns.start, rows.stop - rows.start)
        pixels = file.read(roi=region, plane={"T": time, "C": channel, "Z": plane}, scene=scene)
        colours: NDArray[Any] = pixels[..., ::-1] if is_colour else pixels
        return colours[..., samples]

    return LazyArray((*stacks, box.h, box.w, 3 if is_colour else 1), np.dtype(_TYPES[kinds[0]]), read)


def _pixel_size(about: dict[str, Any]) -> PixelSize | None:
    try:
        return pixel_size(_distance_um(about, "Y"), _distance_um(about, "X"))
    except (KeyError, TypeError, ValueError):
        return None


def _z_step(about: dict[str, Any]) -> float | None:
    try:
        return z_step(_distance_um(about, "Z"))
    except (KeyError, TypeError, ValueError):
        return None


def _distance_um(about: dict[str, Any], axis: str) -> float:
    """Return the distance between two pixels along an axis; the file states it in m."""
    distances = about["Scaling"]["Items"]["Distance"]
    return {distance["@Id"]: float(distance["Value"]) for distance in distances}[axis] * 1e6


def _channel_names(about: dict[str, Any]) -> tuple[str, ...]:
    try:
        channels = about["Information"]["Image"]["Dimensions"]["Channels"]["Channel"]
        return tuple(str(channel.get("@Name", number)) for number, channel in enumerate(channels))
    except (KeyError, TypeError, AttributeError):
        return ()
