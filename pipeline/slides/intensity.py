"""Measure the intensities of a slide on its finest level, and normalize its pixels by them.

Up to 2**26 pixels all are measured; of larger slides a sample, the same for a file with a pyramid and one without.
Training and prediction measure alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import LazyArray, bands
from pipeline.base.errors import SlideError
from pipeline.slides.percentiles import Pieces, percentiles_and_means
from pipeline.slides.slide import Slide

LOW_PERCENT, HIGH_PERCENT = 1.0, 99.8  # as in CSBDeep (Weigert 2018, doi:10.1038/s41592-018-0216-7) and StarDist

_WINDOW_PX = 256  # most files have tiles of this size or a multiple
_WINDOWS = 1024
_BAND_PX = 2**22  # read at a time
_LARGEST, _LARGEST_DOUBLE = float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)

NORMALIZATION = {
    "kind": "percentile",
    "low_percent": LOW_PERCENT,
    "high_percent": HIGH_PERCENT,
    "level": 0,
    "windows": _WINDOWS,
    "window_px": _WINDOW_PX,
}


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


def measure_slide(slide: Slide) -> list[Statistics]:
    """Return the statistics of every channel, from the finest level.

    Up to 2**26 pixels they are exact. Of a larger slide they are those of the windows of :func:`sampled_windows`.

    Raises
    ------
    SlideError
        If a pixel that was read is NaN or infinite, or the file is damaged.
    """
    try:
        return _measure(partial(_pieces, slide), slide.levels[0].dtype)
    except ValueError as error:
        raise SlideError(f"{slide.path}: {error}") from error


def measure_intensities(pixels: NDArray[Any]) -> list[Statistics]:
    """Return the statistics of every channel of (channel, row, column) pixels, of any integer or float type.

    Raises
    ------
    ValueError
        If a pixel is NaN or infinite.
    """
    return _measure(lambda: [lambda: pixels], pixels.dtype)


def sampled_windows(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return where the 1,024 windows of the sample of a slide begin, (row, column), in order.

    The slide is cut into cells of 256 px, and those into 32 x 32 equal rectangles (more in one direction and fewer in
    the other, if the slide is narrow). Each rectangle draws one of its cells, by a fixed seed; a cell that two of them
    share may be drawn twice, and counts twice. So each pixel is as likely to be counted as any other, and the share of
    pixels below a percentile p has a standard error of at most sqrt(p (1 - p) / 1024), reached if no cell has two
    values: 0.31 % of the pixels at percentile 1, 0.14 % at 99.8.

    References
    ----------
    Cochran (1977), Sampling Techniques, chapter 5: stratified random sampling.
    """
    cells = [math.ceil(length / _WINDOW_PX) for length in shape]
    rows = min(cells[0], math.isqrt(_WINDOWS))
    columns = min(cells[1], _WINDOWS // rows)
    rows = min(cells[0], _WINDOWS // columns)
    draw = random.Random(0).random  # the same numbers in every version of Python
    drawn = [
        (int((row + draw()) * cells[0] / rows) * _WINDOW_PX, int((column + draw()) * cells[1] / columns) * _WINDOW_PX)
        for row in range(rows)
        for column in range(columns)
    ]
    return sorted(drawn)


def normalize(
    pixels: NDArray[Any], statistics: list[Statistics], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Map the low percentile of each channel to 0 and the high one to 1.

    Nothing is clipped, except for results beyond the range of float32, which become its ends.

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
    for plane, channel, target in zip(pixels, statistics, normalized, strict=True):
        if not _normalize_in_float32(plane, channel, target):
            with np.errstate(over="ignore"):
                difference = plane.astype(np.float64) - channel.low
                target[:] = np.clip(difference / min(channel.scale, _LARGEST_DOUBLE), -_LARGEST, _LARGEST)
    return normalized


def normalized(slide: Slide, statistics: list[Statistics]) -> LazyArray:
    """Return the (channels, rows, columns) float32 pixels of a slide, normalized where they are read."""

    def read(channels: slice, rows: slice, columns: slice) -> NDArray[np.float32]:
        return normalize(slide.read(rows, columns), statistics)[channels]

    return LazyArray((slide.channels, *slide.shape), np.dtype(np.float32), read)


def _normalize_in_float32(plane: NDArray[Any], channel: Statistics, target: NDArray[np.float32]) -> bool:
    """Normalize one channel at memory speed; return False if float32 rounds its pixels, or a number overflows."""
    if np.result_type(plane.dtype, np.float32) != np.float32:
        return False
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        low, scale = np.float32(channel.low), np.float32(channel.scale)
        np.subtract(plane, low, out=target)
        np.divide(target, scale, out=target)
    return plane.dtype.kind != "f" or bool(np.isfinite(scale) and np.isfinite(target).all())


def _measure(pieces: Pieces, dtype: np.dtype[Any]) -> list[Statistics]:
    values, means = percentiles_and_means(pieces, (0, LOW_PERCENT, HIGH_PERCENT, 100), dtype)
    return [
        Statistics(minimum=minimum, low=low, high=high, maximum=maximum, mean=mean)
        for (minimum, low, high, maximum), mean in zip(values.astype(np.float64).tolist(), means, strict=True)
    ]


def _pieces(slide: Slide) -> Iterator[Callable[[], NDArray[Any]]]:
    """Yield the tasks that read a slide in bands, or a sample of it."""
    rows, columns = slide.shape
    if rows * columns <= _WINDOWS * _WINDOW_PX**2:
        for band in bands(rows, max(1, _BAND_PX // columns)):
            yield partial(slide.read, band, slice(0, columns))
        return
    for top, windows in groupby(sampled_windows(slide.shape), key=lambda window: window[0]):
        lefts = [left for _, left in windows]
        for some in bands(len(lefts), _BAND_PX // _WINDOW_PX**2):
            yield partial(_read_windows, slide, top, lefts[some])


def _read_windows(slide: Slide, top: int, lefts: Sequence[int]) -> NDArray[Any]:
    """Return windows of the same rows, side by side; if the file stores whole rows together, by reading those once."""
    height = min(_WINDOW_PX, slide.shape[0] - top)
    windows = {left: slice(left, min(left + _WINDOW_PX, slide.shape[1])) for left in lefts}
    if not getattr(slide.levels[0], "in_strips", False):
        read = {left: slide.read(slice(top, top + height), window) for left, window in windows.items()}
        return np.concatenate([read[left] for left in lefts], axis=2)
    columns = np.r_[*(windows[left] for left in lefts)]
    rows = bands(height, max(1, _BAND_PX // slide.shape[1]))
    whole = (slide.read(slice(top + band.start, top + band.stop), slice(0, slide.shape[1])) for band in rows)
    return np.concatenate([pixels[:, :, columns] for pixels in whole], axis=1)
