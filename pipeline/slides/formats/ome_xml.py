"""What OME-XML says of an image: pixel size and names of channels. XML of strangers is wrong in every way."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from pipeline.slides.formats.image import UNITS_UM, PixelSize, pixel_size

log = logging.getLogger(__name__)

_LONGEST = 2**26  # bytes of a companion file


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of one image."""

    pixel_size_um: PixelSize | None = None
    channel_names: tuple[str, ...] = ()


NOTHING = Description()


def describe(xml: str | None, number: int) -> Description:
    """Return what OME-XML says of its image ``number``; nothing where it cannot be read: the pixels are still good."""
    try:
        images = _listed(tifffile.xml2dict(xml or "")["OME"]["Image"])
        pixels = images[number]["Pixels"]
    except Exception as error:
        log.warning("OME-XML cannot be read (%s): no pixel size, no names of channels", " ".join(str(error).split()))
        return NOTHING
    return Description(pixel_size_um=_pixel_size(pixels), channel_names=_channel_names(pixels))


def read_companion(path: Path) -> str:
    """Return the OME-XML of a companion file."""
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"OME-XML of {path.stat().st_size} bytes, at most {_LONGEST} are read; check the file")
    return path.read_text(encoding="utf-8")


def file_names(xml: str) -> list[str]:
    """Return the names of the files that OME-XML says the planes are in, without folders."""
    return list(dict.fromkeys(Path(name).name for name in re.findall(r'FileName="([^"]+)"', xml)))


def _listed(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _pixel_size(pixels: dict[str, Any]) -> PixelSize | None:
    stated: dict[str, Any] = {axis: pixels.get(f"PhysicalSize{axis}") for axis in "YX"}
    if None in stated.values():
        return None
    try:
        size = pixel_size(
            *(float(stated[axis]) * UNITS_UM[pixels.get(f"PhysicalSize{axis}Unit", "µm")] for axis in "YX")
        )
    except (KeyError, TypeError, ValueError):
        size = None
    if size is None:
        log.warning("OME-XML states a pixel size of %s, which is none; it is left out", stated)
    return size


def _channel_names(pixels: dict[str, Any]) -> tuple[str, ...]:
    """Return a name per channel; empty where a channel has none, or is several samples of a colour."""
    try:
        channels = _listed(pixels.get("Channel", []))
        if any(int(channel.get("SamplesPerPixel", 1)) > 1 for channel in channels):
            return ()
        return tuple(str(channel.get("Name", number)) for number, channel in enumerate(channels))
    except (AttributeError, ValueError):
        return ()
