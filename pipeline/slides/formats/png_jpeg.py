"""Read PNG and JPEG: the header is checked, then the whole picture is decoded."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image

from pipeline.base.arrays import Array
from pipeline.slides.formats.image import Image, Series, check_budget


def open_png(path: Path, budget_bytes: int, _: ExitStack) -> list[Series]:
    """Return the image of a PNG file, 8 or 16 bit, grey or colour; palettes become colours."""
    with path.open("rb") as file:
        header = file.read(29)
    if len(header) < 29:
        raise ValueError("the PNG is cut short within its header; copy it again")
    columns, rows, bits = struct.unpack(">IIB", header[16:25])
    check_budget("the PNG", rows * columns * 4 * max(1, bits // 8), budget_bytes)
    return [Series(name="", open=lambda: _image(imagecodecs.png_decode(path.read_bytes())))]


def open_jpeg(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the image of a JPEG file, grey or RGB."""
    picture = stack.enter_context(PIL.Image.open(path, formats=["JPEG"]))
    if picture.mode not in ("L", "RGB"):
        raise ValueError(f"colours stored as {picture.mode} cannot be read; save it in grey or RGB")
    check_budget("the JPEG", picture.width * picture.height * 3, budget_bytes)
    return [Series(name="", open=lambda: _image(np.asarray(picture)))]


def _image(pixels: Array) -> Image:
    return Image(levels=(pixels,), axes="YXS"[: len(pixels.shape)])
