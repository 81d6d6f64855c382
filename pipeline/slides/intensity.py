"""Measure the intensities of a whole slide, and normalize its pixels by them.

Percentiles come from a histogram that is filled band by band: exact for 8 and 16 bit integers, to one part in 65,536
of the range for other types. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import bands
from pipeline.base.errors import SlideError
from pipeline.slides.slide import Slide

LOW_PERCENT, HIGH_PERCENT = 1.0, 99.8  # as in CSBDeep (Weigert 2018, doi:10.1038/s41592-018-0216-7) and StarDist
NORMALIZATION = {"kind": "percentile", "low_percent": LOW_PERCENT, "high_percent": HIGH_PERCENT}

_BINS = 65_536
_BAND_PX = 2**22  # read at a time
_ENOUGH_PX = 2**20  # pixels of a level that is measured instead of a finer one

ReadBands = Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Intensities of one channel of a slide, in its own units."""

    minimum: float
    maximum: float
    mean: float
    low: float
    high: float

    @property
    def scale(self) -> float:
        """The divisor: high - low; the whole range if those are equal, 1 if the channel is constant."""
        return (self.high - self.low) or (self.maximum - self.low) or 1.0


def measure_intensities(read_bands: ReadBands, dtype: np.dtype[Any]) -> list[Statistics]:
    """Return the statistics of every channel.

    Parameters
    ----------
    read_bands : callable
        Each call returns an iterator over (channel, row, column) pieces of the slide; it is called twice.
    dtype : dtype
        Of the pixels; integers get bins of one unit where their range allows it.

    Raises
    ------
    ValueError
        If a pixel is NaN or infinite.
    """
    minimum, maximum = _range(read_bands)
    one_unit = (dtype.kind in "uib") & (maximum - minimum < _BINS) | (maximum == minimum)
    width = np.where(one_unit, 1.0, (maximum - minimum) / (_BINS - 1))
    counts = np.zeros((len(minimum), _BINS), dtype=np.int64)
    totals = np.zeros(len(minimum))
    for band in read_bands():
        for channel, pixels in enumerate(band):
            values = pixels.astype(np.float64).ravel()
            totals[channel] += values.sum()
            bins = np.rint((values - minimum[channel]) / width[channel]).astype(np.intp)
            counts[channel] += np.bincount(bins, minlength=_BINS)
    return [
        Statistics(
            minimum=float(minimum[channel]),
            maximum=float(maximum[channel]),
            mean=float(totals[channel] / counts[channel].sum()),
            low=_percentile(counts[channel], LOW_PERCENT) * float(width[channel]) + float(minimum[channel]),
            high=_percentile(counts[channel], HIGH_PERCENT) * float(width[channel]) + float(minimum[channel]),
        )
        for channel in range(len(minimum))
    ]


def measure_slide(slide: Slide) -> list[Statistics]:
    """Return the statistics of every channel of a slide, from the coarsest level with a million pixels.

    Raises
    ------
    SlideError
        If a pixel is NaN or infinite, or the file is damaged.
    """
    enough = (level for level in range(len(slide.levels)) if math.prod(slide.shape_of(level)) >= _ENOUGH_PX)
    level = max(enough, default=0)
    read_bands = row_bands(lambda rows, columns: slide.read(rows, columns, level), slide.shape_of(level))
    try:
        return measure_intensities(read_bands, slide.levels[level].dtype)
    except ValueError as error:
        raise SlideError(f"{slide.path}: {error}") from error


def row_bands(read: Callable[[slice, slice], NDArray[Any]], shape: tuple[int, int]) -> ReadBands:
    """Return what reads a slide in bands of whole rows, about 4 million pixels each."""
    height = max(1, _BAND_PX // shape[1])
    return lambda: (read(rows, slice(0, shape[1])) for rows in bands(shape[0], height))


def normalize(
    pixels: NDArray[Any], statistics: list[Statistics], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Map the low percentile of each channel to 0 and the high one to 1, without clipping.

    Parameters
    ----------
    pixels : (channels, rows, columns) array
    out : (channels, rows, columns) float32 array, optional
        Array to write into and return.

    Returns
    -------
    (channels, rows, columns) float32 array
    """
    normalized = np.empty(pixels.shape, dtype=np.float32) if out is None else out
    exact = np.result_type(pixels.dtype, np.float32)  # float64 only where float32 would round the pixels
    for plane, channel, target in zip(pixels, statistics, normalized, strict=True):
        if exact == np.float32:
            np.subtract(plane, exact.type(channel.low), out=target)
            np.divide(target, exact.type(channel.scale), out=target)
        else:
            target[:] = (plane - channel.low) / channel.scale
    return normalized


def _range(read_bands: ReadBands) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lows, highs = [], []
    for band in read_bands():
        unusable = band.size - np.count_nonzero(np.isfinite(band))
        if unusable:
            raise ValueError(f"{unusable} pixels are NaN or infinite and cannot be normalized; replace them")
        lows.append(band.min(axis=(1, 2)).astype(np.float64))
        highs.append(band.max(axis=(1, 2)).astype(np.float64))
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _percentile(counts: NDArray[np.int64], percent: float) -> int:
    """Return the smallest bin with at least ``percent`` of the pixels in it and below."""
    return int(np.searchsorted(np.cumsum(counts), percent / 100 * counts.sum()))
