"""Describe the look of a slide in a few numbers, to flag slides that are unlike the training images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from pipeline.slides.intensity import HIGH_PERCENT

WINDOW_PX = 512
_WINDOWS_PER_SIDE = 4
_CELL_PX = 16
_CONTENT = 3.0  # a square has content if its standard deviation is this many times the noise


def windows(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield up to 16 regions of at most 512 x 512 px, spread evenly over a slide; a small slide is covered."""
    sides = []
    for length in shape:
        count = min(_WINDOWS_PER_SIDE, -(-length // WINDOW_PX))
        size = min(WINDOW_PX, length)
        starts = np.linspace(0, length - size, count).round().astype(int)
        sides.append([slice(int(start), int(start) + size) for start in starts])
    for rows in sides[0]:
        for columns in sides[1]:
            yield rows, columns


def appearance(pieces: list[NDArray[Any]]) -> dict[str, float]:
    """Describe the look of a slide by windows of it.

    Parameters
    ----------
    pieces : list of (channels, rows, columns) arrays
        Raw intensities, integers or floats, of one type.

    Returns
    -------
    dict of float
        ``intensity`` (mean) and ``contrast`` (1st to 99th percentile), as shares of the range, and ``colour_i`` of each
        channel, its share of the intensity; ``skewness`` of the intensities; ``focus``, log10 of the energy of the
        Laplacian relative to the contrast; ``saturated``, the share of pixels at an end of the range; ``tissue``, the
        share of small squares that hold more than noise. The range ends at the largest value of an 8 or 16 bit
        integer; for other types, whose largest value says nothing, at percentile 99.8 of the windows.
    """
    largest = _largest(pieces)
    pieces = [np.minimum(piece, largest) for piece in pieces]
    grey = [piece.mean(axis=0, dtype=np.float64) / largest for piece in pieces]
    values = np.concatenate([piece.ravel() for piece in grey])
    by_channel = np.mean([piece.mean(axis=(1, 2), dtype=np.float64) for piece in pieces], axis=0)
    low, high = np.percentile(values, (1, 99))
    contrast = max(high - low, 1e-6)
    sharpness = np.mean([np.mean(scipy.ndimage.laplace(piece) ** 2) for piece in grey])
    ends = [((piece <= 0) | (piece >= largest)).all(axis=0).mean() for piece in pieces]
    look = {
        "intensity": float(values.mean()),
        "contrast": float(contrast),
        "skewness": float(((values - values.mean()) ** 3).mean() / max(values.std(), 1e-6) ** 3),
        "focus": float(np.log10(max(sharpness, 1e-12) / contrast**2)),
        "saturated": float(np.mean(ends)),
        "tissue": float(np.mean([_content(piece) for piece in grey])),
    }
    shares = by_channel / max(by_channel.sum(), 1e-12)
    return look | ({f"colour_{index}": float(share) for index, share in enumerate(shares)} if len(shares) > 1 else {})


def _largest(pieces: list[NDArray[Any]]) -> Any:
    """Return the upper end of the range, of the type of the pixels."""
    dtype = pieces[0].dtype
    if dtype.kind in "uib" and dtype.itemsize <= 2:
        return dtype.type(1 if dtype.kind == "b" else np.iinfo(dtype).max)
    high = np.percentile(np.concatenate([piece.ravel() for piece in pieces]), HIGH_PERCENT, method="inverted_cdf")
    return high if high > 0 else dtype.type(1)


def _content(grey: NDArray[np.float64]) -> float:
    """Return the share of squares whose standard deviation is well above that of the noise.

    The noise is that of Immerkaer (1996), doi:10.1006/cviu.1996.0060, by the median instead of the mean.
    """
    rows, columns = (length // _CELL_PX for length in grey.shape)
    if not (rows and columns):
        return 1.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    noise = 1.4826 * np.median(np.abs(scipy.ndimage.convolve(grey, kernel))) / 6
    cells = grey[: rows * _CELL_PX, : columns * _CELL_PX].reshape(rows, _CELL_PX, columns, _CELL_PX)
    return float((cells.std(axis=(1, 3)) > _CONTENT * noise + 1e-6).mean())
