"""Arrays at another pixel size. Intensities are averaged over the area of a pixel; labels are picked at its centre.

Every pixel is computed from the same source pixels in the same order whatever region is read, so that regions that
overlap agree bit for bit, and tiles equal the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray, bands

_BAND_PX = 2**23  # of the source, read at a time


def resampled(source: Array, shape: tuple[int, int], step: tuple[float, float]) -> LazyArray:
    """Return intensities on a grid whose pixels are ``step`` (row, column) pixels of ``source`` wide.

    Along each axis a step of 1 or more averages the source pixels that a pixel covers, each weighted by the part of it
    that is covered; a smaller step interpolates linearly between the two nearest pixel centres, the last one repeated
    beyond the border. Integers are rounded to the nearest (halves to the even one).

    Parameters
    ----------
    source : (channels, rows, columns) array
    shape : (rows, columns)
        Of the result; both grids begin at the same corner.
    """
    return _on_grid(source, shape, step, _average)


def picked(source: Array, shape: tuple[int, int], step: tuple[float, float]) -> LazyArray:
    """Return labels at the pixel centres of the grid of :func:`resampled`: the nearest pixel, never a mixture."""
    return _on_grid(source, shape, step, _nearest)


@dataclass(frozen=True)
class _Taps:
    """Which source pixels make each pixel along one axis, (pixels, taps), and how much each of them counts."""

    indices: NDArray[np.intp]
    weights: NDArray[np.float64]

    @property
    def span(self) -> slice:
        """The source pixels that are needed."""
        return slice(int(self.indices.min()), int(self.indices.max()) + 1)

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels made from the rows of the span, tap by tap: the order never changes."""
        rows = self.indices - self.span.start
        if rows.shape[1] == 1:
            picked: NDArray[Any] = pixels[rows[:, 0]]
            return picked
        mixed = np.zeros((len(rows), pixels.shape[1]))
        for tap in range(rows.shape[1]):
            mixed += self.weights[:, tap, None] * pixels[rows[:, tap]]
        return mixed


def _on_grid(
    source: Array, shape: tuple[int, int], step: tuple[float, float], taps: Callable[[slice, float, int], _Taps]
) -> LazyArray:
    def read(channels: slice, rows: slice, columns: slice) -> NDArray[Any]:
        across = taps(columns, step[1], source.shape[2])
        width = across.span.stop - across.span.start
        together = max(1, int(_BAND_PX / (max(step[0], 1.0) * width)))
        pixels = np.empty((source.shape[0], rows.stop - rows.start, columns.stop - columns.start), source.dtype)
        for band in bands(pixels.shape[1], together):
            down = taps(slice(rows.start + band.start, rows.start + band.stop), step[0], source.shape[1])
            for plane, target in zip(source[:, down.span, across.span], pixels[:, band], strict=True):
                mixed = across.apply(down.apply(plane).T).T
                target[:] = mixed if mixed.dtype == source.dtype or source.dtype.kind == "f" else np.rint(mixed)
        return pixels[channels]

    return LazyArray((source.shape[0], *shape), source.dtype, read, getattr(source, "in_strips", False))


def _nearest(wanted: slice, step: float, length: int) -> _Taps:
    centres = (np.arange(wanted.start, wanted.stop) + 0.5) * step
    return _Taps(np.minimum(centres.astype(np.intp), length - 1)[:, None], np.ones((len(centres), 1)))


def _average(wanted: slice, step: float, length: int) -> _Taps:
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
