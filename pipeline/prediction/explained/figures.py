"""Figures of ``explain``: occlusion map, first filters, strongest responses.

Arrays go in, the bytes of a PNG file come out; without pyplot.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pipeline.base.palette import class_rgb, css
from pipeline.tiling.grid import Region

_DPI = 110
_MOST_FILTERS, _FILTERS_IN_A_ROW, _MOST_CHANNELS = 64, 16, 4
_SIDE_IN = 0.62  # of a filter, or of a patch


@dataclass(frozen=True, kw_only=True)
class Row:
    """The strongest responses of one channel of a layer: (channels, rows, columns) patches and values."""

    title: str
    patches: Sequence[NDArray[np.float32]]
    values: Sequence[float]


def occlusion_figure(
    window: NDArray[np.float32], falls: NDArray[np.float32], place: Region, *, title: str, class_index: int
) -> bytes:
    """Return a window of a slide beside its occlusion map: the fall of the probability at ``place``.

    Parameters
    ----------
    window : (channels, rows, columns) float32 array
        Normalized.
    falls : (rows, columns) float32 array
        Result of :func:`pipeline.prediction.explained.responses.occlusion_map`.
    place : Region
        In pixels of the window.
    """
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    plain, mapped = figure.subplots(1, 2)
    for axes in (plain, mapped):
        axes.imshow(_shown(window), cmap="gray", vmin=0, vmax=1)
        rows, columns = place.shape
        corner = (place.left - 1.5, place.top - 1.5)
        axes.add_patch(Rectangle(corner, columns + 2, rows + 2, fill=False, edgecolor=css(class_rgb(class_index))))
        axes.set_axis_off()
    largest = max(float(np.abs(falls).max()), 1e-6)
    colours = ScalarMappable(Normalize(-largest, largest), cmap="RdBu_r")
    mapped.imshow(colours.to_rgba(falls), alpha=0.75 * np.abs(falls) / largest)  # transparent at 0
    figure.colorbar(colours, ax=mapped, label="fall of the probability if hidden")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return _png(figure)


def filter_figure(kernels: NDArray[np.float32]) -> bytes:
    """Return the first kernels of a layer, (filters, channels, rows, columns): red is positive, blue negative.

    Three channels are shown as one colour picture; otherwise the first four are shown, a row each. Each kernel has its
    own scale.
    """
    kernels = kernels[:_MOST_FILTERS]
    colour = kernels.shape[1] == 3
    channels = 1 if colour else min(kernels.shape[1], _MOST_CHANNELS)
    columns = min(len(kernels), _FILTERS_IN_A_ROW)
    rows = -(-len(kernels) // columns) * channels
    figure = Figure(figsize=(_SIDE_IN * columns + 0.4, _SIDE_IN * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, kernel in enumerate(kernels):
        largest = max(float(np.abs(kernel).max()), 1e-12)
        for channel in range(channels):
            axes = grid[number // columns * channels + channel, number % columns]
            if colour:
                axes.imshow(np.moveaxis(0.5 + kernel / (2 * largest), 0, -1))
            else:
                axes.imshow(kernel[channel], cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.suptitle(f"first layer, {len(kernels)} filters", fontsize=10)
    return _png(figure)


def response_figure(rows: Sequence[Row]) -> bytes:
    """Return the patches that channels respond to most, a row per channel."""
    most = max((len(row.patches) for row in rows), default=1)
    figure = Figure(figsize=(1.6 * _SIDE_IN * most + 2.6, 1.9 * _SIDE_IN * max(len(rows), 1)), layout="constrained")
    grid = figure.subplots(max(len(rows), 1), most, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    if not rows:
        grid[0, 0].text(0, 0.5, "every layer is constant here")
    for axes_of_row, row in zip(grid, rows, strict=False):
        axes_of_row[0].text(
            -0.1, 0.5, row.title, ha="right", va="center", fontsize=7, transform=axes_of_row[0].transAxes
        )
        for axes, patch, value in zip(axes_of_row, row.patches, row.values, strict=False):
            axes.imshow(_shown(patch), cmap="gray", vmin=0, vmax=1)
            axes.set_title(f"{value:.2g}", fontsize=7, pad=2)
    return _png(figure)


def _shown(window: NDArray[np.float32]) -> NDArray[Any]:
    """Return (rows, columns, 3) of three channels, else (rows, columns): their mean. 0 is black, 1 white."""
    clipped = np.clip(window, 0, 1)
    return np.moveaxis(clipped, 0, -1) if len(clipped) == 3 else clipped.mean(axis=0)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()
