"""Blending of overlapping windows of a network with global context, one row of tiles after the other.

Such a network sees a different image in every window, so neighbours disagree at their border. Their probabilities are
averaged with Gaussian weights around the centre of each window (as in nnU-Net, doi:10.1038/s41592-020-01008-z). The
pixels whose label differs between two windows are counted: the tile mismatch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import bands
from pipeline.tiling.grid import Grid, Region, Tile

Probabilities = NDArray[np.float32]

_SIGMA = 1 / 8  # of the side of a window
_LEAST_WEIGHT = 1e-3
_NO_LABEL = 255


@dataclass(kw_only=True)
class Mismatch:
    """Pixels at which two windows were compared, and how many of them got different labels."""

    differing_px: int = 0
    compared_px: int = 0

    @property
    def share(self) -> float:
        """Share of the compared pixels that differ; 0 if a single window holds the slide."""
        return self.differing_px / self.compared_px if self.compared_px else 0.0


class Blend:
    """Blends the windows of one slide, which must be added in the order of ``grid.tiles()``.

    At most three rows of tiles are in memory.

    Parameters
    ----------
    num_classes : int
        Channels that are probabilities of classes, the first ones; the labels of windows are compared.
    num_heads : int
        Further channels, averaged in the same way.
    rows : int
        Rows of tiles that an interrupted run has completed; windows do not change them.
    windows : int or None
        Number of windows to be added; None: all of the grid.

    Attributes
    ----------
    mismatch : Mismatch
        In the rows that were completed here.
    rows : int
        Number of complete rows.
    """

    def __init__(
        self, grid: Grid, num_classes: int, num_heads: int = 0, *, rows: int = 0, windows: int | None = None
    ) -> None:
        self.mismatch, self.rows = Mismatch(), rows
        self._grid = grid
        self._classes, self._channels = num_classes, num_classes + num_heads
        self._missing = grid.count if windows is None else windows
        self._rows: dict[int, _Row] = {}

    def add(self, tile: Tile, probabilities: Probabilities) -> Iterator[tuple[Region, Probabilities]]:
        """Add a window; yield the regions that it completes.

        Parameters
        ----------
        probabilities : (classes + heads, rows, columns) float32 array
            Of the write region and ``grid.overlap_px`` around it, including what is beyond the slide.

        Yields
        ------
        region : Region
            The write region of a tile.
        probabilities : (classes + heads, rows, columns) float32 array
        """
        current = tile.write.top // self._grid.tile[0]
        for number in sorted(number for number in self._rows if number < current - 1):
            yield from self._finish(number)
        top, left = tile.write.top - self._grid.overlap_px, tile.write.left - self._grid.overlap_px
        weights = np.multiply.outer(*(_gaussian(length) for length in probabilities.shape[1:]))
        for number in (current - 1, current, current + 1):
            row_top, row_bottom = self._extent(number)
            rows = slice(max(top, row_top), min(top + weights.shape[0], row_bottom))
            columns = slice(max(left, 0), min(left + weights.shape[1], self._grid.shape[1]))
            if number >= self.rows and rows.start < rows.stop:
                inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
                place = (slice(rows.start - row_top, rows.stop - row_top), columns)
                self._row(number).add(place, probabilities[:, *inner], weights[inner])
        self._missing -= 1
        if self._missing == 0:
            for number in sorted(self._rows):
                yield from self._finish(number)

    def _extent(self, number: int) -> tuple[int, int]:
        """Return first and last row of a row of tiles."""
        top = number * self._grid.tile[0]
        return max(top, 0), min(top + self._grid.tile[0], self._grid.shape[0])

    def _row(self, number: int) -> _Row:
        if number not in self._rows:
            top, bottom = self._extent(number)
            self._rows[number] = _Row(self._classes, self._channels, bottom - top, self._grid.shape[1])
        return self._rows[number]

    def _finish(self, number: int) -> Iterator[tuple[Region, Probabilities]]:
        row = self._rows.pop(number)
        top, bottom = self._extent(number)
        for columns in bands(self._grid.shape[1], self._grid.tile[1]):
            blended = row.total[..., columns] / row.weight[:, columns]
            yield Region(top=top, left=columns.start, bottom=bottom, right=columns.stop), blended
        self.rows = number + 1
        self.mismatch.differing_px += row.mismatch.differing_px
        self.mismatch.compared_px += row.mismatch.compared_px


class _Row:
    """Sums of one row of tiles."""

    def __init__(self, num_classes: int, channels: int, height: int, width: int) -> None:
        self._classes = num_classes
        self.total = np.zeros((channels, height, width), dtype=np.float32)
        self.weight = np.zeros((height, width), dtype=np.float32)
        self.first_label = np.full((height, width), _NO_LABEL, dtype=np.uint8)
        self.mismatch = Mismatch()

    def add(self, place: tuple[slice, slice], probabilities: Probabilities, weights: NDArray[Any]) -> None:
        """Add a part of a window, and compare its labels with those of the first window at each pixel."""
        self.total[:, *place] += probabilities * weights
        self.weight[place] += weights
        labels, first = probabilities[: self._classes].argmax(axis=0).astype(np.uint8), self.first_label[place]
        seen = first != _NO_LABEL
        self.mismatch.compared_px += int(seen.sum())
        self.mismatch.differing_px += int((seen & (first != labels)).sum())
        first[~seen] = labels[~seen]


def _gaussian(length: int) -> NDArray[np.float32]:
    distance = (np.arange(length) - (length - 1) / 2) / (_SIGMA * length)
    return np.maximum(np.exp(-(distance**2) / 2), _LEAST_WEIGHT).astype(np.float32)
