"""Levels at another pixel size. Intensities are averaged over the area of a pixel; labels are picked at its centre.

Every pixel is computed from the same source pixels in the same order whatever region is asked for, so that regions
that overlap agree bit for bit, and tiles equal the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.planes import Level, Pixels

_BAND_PX = 2**23  # of the source, read at a time


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A level whose pixels are ``step`` (row, column) pixels of ``source`` wide, from the same corner.

    Along each axis a step of 1 or more averages the source pixels that a pixel covers, each weighted by the part of it
    that is covered; a smaller step interpolates linearly between the two nearest pixel centres, the last one repeated
    beyond the border. Integers are rounded to the nearest (halves to the even one).
    """

    source: Level
    shape: tuple[int, int]
    step: tuple[float, float]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.source.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self.source.dtype

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a region inside the level as (channel, row, column); the source is read band by band."""
        wanted_rows, wanted_columns = (range(n)[part] for n, part in zip(self.shape, (rows, columns), strict=True))
        across = _taps(wanted_columns, self.step[1], self.source.shape[1])
        source_columns = slice(int(across.indices.min()), int(across.indices.max()) + 1)
        width = source_columns.stop - source_columns.start
        together = max(1, int(_BAND_PX / (max(self.step[0], 1.0) * width)))
        pixels = np.empty((self.channels, len(wanted_rows), len(wanted_columns)), dtype=self.dtype)
        for first in range(0, len(wanted_rows), together):
            down = _taps(wanted_rows[first : first + together], self.step[0], self.source.shape[0])
            source_rows = slice(int(down.indices.min()), int(down.indices.max()) + 1)
            block = self.source.read(source_rows, source_columns)
            for channel, plane in enumerate(block):
                narrowed = down.weigh(plane, source_rows.start)
                mixed = across.weigh(narrowed.T, source_columns.start).T
                pixels[channel, first : first + together] = _as_type(mixed, self.dtype)
        return pixels


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A level of labels at the pixel centres of another grid: the nearest pixel of ``source``, never a mixture."""

    source: Level
    shape: tuple[int, int]
    step: tuple[float, float]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.source.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self.source.dtype

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a region inside the level as (channel, row, column); the source is read band by band."""
        wanted = [range(n)[part] for n, part in zip(self.shape, (rows, columns), strict=True)]
        down, across = (
            np.minimum(((np.arange(part.start, part.stop) + 0.5) * step).astype(np.intp), length - 1)
            for part, step, length in zip(wanted, self.step, self.source.shape, strict=True)
        )
        width = int(across[-1] - across[0]) + 1
        together = max(1, int(_BAND_PX / (max(self.step[0], 1.0) * width)))
        bands = []
        for first in range(0, len(down), together):
            band = down[first : first + together]
            block = self.source.read(slice(int(band[0]), int(band[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1))
            bands.append(block[:, band - band[0]][:, :, across - across[0]])
        return np.concatenate(bands, axis=1)


@dataclass(frozen=True)
class _Taps:
    """Which source pixels make each pixel along one axis, (pixels, taps), and how much each of them counts."""

    indices: NDArray[np.intp]
    weights: NDArray[np.float64]

    def weigh(self, pixels: Pixels, first: int) -> NDArray[np.float64]:
        """Mix the rows of a block that begins at source row ``first``, tap by tap: the order never changes."""
        mixed = np.zeros((len(self.indices), pixels.shape[1]))
        for tap in range(self.indices.shape[1]):
            mixed += self.weights[:, tap, None] * pixels[self.indices[:, tap] - first]
        return mixed


def _taps(wanted: range, step: float, length: int) -> _Taps:
    pixels = np.arange(wanted.start, wanted.stop, dtype=np.float64)
    if step < 1:
        centres = np.clip((pixels + 0.5) * step - 0.5, 0, length - 1)
        lower = np.floor(centres)
        upper_share = centres - lower
        indices = np.stack([lower, np.minimum(lower + 1, length - 1)], axis=1)
        return _Taps(indices.astype(np.intp), np.stack([1 - upper_share, upper_share], axis=1))
    starts, ends = pixels * step, np.minimum((pixels + 1) * step, length)
    indices = np.floor(starts)[:, None] + np.arange(math.ceil(step) + 1)
    covered = np.minimum(indices + 1, ends[:, None]) - np.maximum(indices, starts[:, None])
    weights = np.maximum(covered, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return _Taps(np.clip(indices, 0, length - 1).astype(np.intp), weights)


def _as_type(mixed: NDArray[np.float64], dtype: np.dtype[Any]) -> Pixels:
    return mixed.astype(dtype) if dtype.kind == "f" else np.rint(mixed).astype(dtype)
