"""Slides of pixels in memory, to measure objects on."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.arrays import Array
from pipeline.slides.slide import Slide


def slide_of(pixels: Array) -> Slide:
    """Return (channel, row, column) pixels as an open slide."""
    _, rows, columns = pixels.shape
    return Slide(path=Path("slide.tif"), levels=(pixels,), file_shape=(rows, columns))
