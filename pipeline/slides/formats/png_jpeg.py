"""Read PNG and JPEG: the header is checked, then the whole picture is decoded."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image

from pipeline.base.arrays import Array
from pipeline.slides.formats.compression.damage import is_jpeg_damaged
from pipeline.slides.formats.image import Image, Series, check_budget, orientation_warning

_ORIENTATION = 274  # tag of TIFF and EXIF
_GREY, _PALETTE = 0, 3  # colour types of PNG


def open_png(path: Path, budget_bytes: int, _: ExitStack) -> list[Series]:
    """Return the image of a PNG file, 8 or 16 bit, grey or colour; palettes become colours."""
    with path.open("rb") as file:
        header = file.read(29)
    if len(header) < 29:
        raise ValueError("the PNG is cut short within its header; copy it again")
    columns, rows, bits, colours = struct.unpack(">IIBB", header[16:26])
    check_budget("the PNG", rows * columns * 4 * max(1, bits // 8), budget_bytes)
    return [Series(name="", open=lambda: _png(path, bits, colours))]


def open_jpeg(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the image of a JPEG file, grey or RGB."""
    picture = stack.enter_context(PIL.Image.open(path, formats=["JPEG"]))
    if picture.mode not in ("L", "RGB"):
        raise ValueError(f"colours stored as {picture.mode} cannot be read; save it in grey or RGB")
    pixels = picture.width * picture.height
    check_budget("the JPEG", pixels * 3, budget_bytes)
    warnings = orientation_warning(picture.getexif().get(_ORIENTATION, 1))

    def decode() -> Image:
        check = partial(_refuse_damaged, path, pixels)
        return replace(_image(np.asarray(picture)), lossy="JPEG", warnings=warnings, missing=check)

    return [Series(name="", open=decode)]


def _refuse_damaged(path: Path, pixels: int, _level: int, _planes: Mapping[str, int]) -> tuple[int, int]:
    if is_jpeg_damaged(path.read_bytes(), pixels):
        raise ValueError("its data are damaged; copy or save it again")
    return 0, 1


def _png(path: Path, bits: int, colours: int) -> Image:
    image = _image(imagecodecs.png_decode(path.read_bytes()))
    numbers = None
    with PIL.Image.open(path, formats=["PNG"]) as picture:
        has_exif = "exif" in picture.info  # unless it follows the pixels
        warnings = orientation_warning(picture.getexif().get(_ORIENTATION, 1) if has_exif else 1)
        if colours == _PALETTE:
            numbers = _image(np.asarray(picture))
    if colours == _GREY and bits < 8:  # the decoder spreads them over 0 to 255
        stored = image.levels[0] // (255 // (2**bits - 1))
        numbers = _image(stored.astype(bool) if bits == 1 else stored)
    numbers = numbers and replace(numbers, warnings=warnings)
    return replace(image, numbers=numbers, warnings=warnings)


def _image(pixels: Array) -> Image:
    return Image(levels=(pixels,), axes="YXS"[: len(pixels.shape)])
