"""Read the pixel size and the channel names of an image from OME-XML, which may be wrong in any way."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from pipeline.slides.formats.image import PixelSize, ignored_size, pixel_size, unit_um, z_step

log = logging.getLogger(__name__)

_LONGEST = 2**26  # bytes of a companion file


@dataclass(frozen=True, kw_only=True)
class Description:
    """What OME-XML says about one image; None and empty where it says nothing."""

    pixel_size_um: PixelSize | None = None
    z_step_um: float | None = None
    channel_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


UNUSABLE = Description(
    warnings=("its OME-XML is damaged or does not fit the file: its pixel size and channel names are not used",)
)


def read_description(xml: str | None, number: int) -> Description:
    """Return what OME-XML says about image ``number``; an empty description, with a warning, if it cannot be read."""
    try:
        images = _as_list(tifffile.xml2dict(xml or "")["OME"]["Image"])
        pixels = images[number]["Pixels"]
    except Exception as error:
        log.warning("OME-XML cannot be read (%s): no pixel size, no channel names", " ".join(str(error).split()))
        return UNUSABLE
    size, warnings = _pixel_size(pixels)
    return Description(
        pixel_size_um=size, z_step_um=_z_step(pixels), channel_names=_channel_names(pixels), warnings=warnings
    )


def read_companion(path: Path) -> str:
    """Return the OME-XML of a companion file."""
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"OME-XML has {path.stat().st_size} bytes, the limit is {_LONGEST}; check the file")
    return path.read_text(encoding="utf-8")


def file_names(xml: str) -> list[str]:
    """Return the names of the files that OME-XML lists for the planes, as it states them; none if it is damaged."""
    try:
        elements = ElementTree.fromstring(xml).iter()
    except ElementTree.ParseError:
        return []
    return list(dict.fromkeys(element.attrib["FileName"] for element in elements if "FileName" in element.attrib))


def _as_list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _pixel_size(pixels: dict[str, Any]) -> tuple[PixelSize | None, tuple[str, ...]]:
    stated: dict[str, Any] = {axis: pixels.get(f"PhysicalSize{axis}") for axis in "YX"}
    if set(stated.values()) == {None}:
        return None, ()
    units = {axis: str(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "YX"}
    try:
        size = pixel_size(*(float(stated[axis]) * (unit_um(units[axis]) or 0) for axis in "YX"))
    except (TypeError, ValueError):
        size = None
    if size is not None:
        return size, ()
    sizes = " x ".join(f"{stated[axis]} {units[axis]}" if stated[axis] else "unknown" for axis in "YX")
    return None, (ignored_size(sizes),)


def _z_step(pixels: dict[str, Any]) -> float | None:
    try:
        return z_step(float(pixels["PhysicalSizeZ"]) * (unit_um(str(pixels.get("PhysicalSizeZUnit", "µm"))) or 0))
    except (KeyError, TypeError, ValueError):
        return None


def _channel_names(pixels: dict[str, Any]) -> tuple[str, ...]:
    """Return a name per channel; empty if a channel holds several samples of a colour."""
    try:
        channels = _as_list(pixels.get("Channel", []))
        if any(int(channel.get("SamplesPerPixel", 1)) > 1 for channel in channels):
            return ()
        return tuple(str(channel.get("Name", number)) for number, channel in enumerate(channels))
    except (AttributeError, ValueError):
        return ()
