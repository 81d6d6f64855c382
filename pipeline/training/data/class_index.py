"""Numbers of pixels of each class in the cells of a slide: a random pixel of a class is drawn without a search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, bands
from pipeline.slides.labels import IGNORED
from pipeline.tiling.tissue import Tissue

_CELL_PX = 32
_MOST_CELLS = 2**20  # larger slides have larger cells
_BAND_PX = 2**22


@dataclass(frozen=True, kw_only=True)
class ClassIndex:
    """Pixels of each class by cell.

    Attributes
    ----------
    shape : (rows, columns)
        Of the slide.
    side_px : int
        Of a cell.
    counts : dict of class to (cell rows, cell columns) int64 array
        Only classes that occur; ignored pixels are not counted.
    """

    shape: tuple[int, int]
    side_px: int
    counts: dict[int, NDArray[np.int64]]

    @property
    def classes(self) -> list[int]:
        """The classes that occur, in ascending order."""
        return sorted(self.counts)

    def without_glass(self, tissue: Tissue) -> ClassIndex:
        """Return the index without background on glass; other classes count everywhere."""
        centres = (
            ((np.arange(cells) + 0.5) * self.side_px / side).astype(np.intp).clip(max=length - 1)
            for cells, side, length in zip(self._cells, tissue.cell_px, tissue.cells.shape, strict=True)
        )
        on_tissue = tissue.cells[np.ix_(*centres)]
        background = {0: self.counts[0] * on_tissue} if 0 in self.counts else {}
        counts = {index: cells for index, cells in (self.counts | background).items() if cells.any()}
        return ClassIndex(shape=self.shape, side_px=self.side_px, counts=counts)

    def draw(self, classes: Array, of_class: int | None, generator: np.random.Generator) -> tuple[int, int]:
        """Return row and column of a random pixel of a class (None: of any class), all with equal probability.

        ``classes`` is the class map of the index; one cell of it is read.
        """
        if of_class is None:
            up_to = np.cumsum([self.counts[index].sum() for index in self.classes])
            of_class = self.classes[np.searchsorted(up_to, generator.integers(up_to[-1]), side="right")]
        up_to = np.cumsum(self.counts[of_class])
        cell = np.searchsorted(up_to, generator.integers(up_to[-1]), side="right")
        top, left = (int(number) * self.side_px for number in np.unravel_index(cell, self._cells))
        square = classes[top : top + self.side_px, left : left + self.side_px]
        row, column = np.argwhere(square == of_class)[generator.integers(self.counts[of_class].flat[cell])]
        return top + int(row), left + int(column)

    @property
    def _cells(self) -> tuple[int, int]:
        return -(-self.shape[0] // self.side_px), -(-self.shape[1] // self.side_px)


def index_classes(classes: Array) -> ClassIndex:
    """Count the pixels of a (rows, columns) class map, read band by band."""
    rows, columns = classes.shape
    side = max(_CELL_PX, math.ceil(math.sqrt(rows * columns / _MOST_CELLS)))
    across = -(-columns // side)
    height = max(1, _BAND_PX // (columns * side)) * side
    counts: dict[int, list[NDArray[np.int64]]] = {}
    done = 0
    for wanted in bands(rows, height):
        band = classes[wanted, :]
        band = np.pad(band, [(0, -len(band) % side), (0, -columns % side)], constant_values=IGNORED)
        down = len(band) // side
        squares = band.reshape(down, side, across, side)
        for index in np.unique(band[band != IGNORED]).tolist():
            known = counts.setdefault(index, [np.zeros((done, across), dtype=np.int64)])
            known.append((squares == index).sum(axis=(1, 3), dtype=np.int64))
        done += down
        for known in counts.values():
            if (missing := done - sum(len(part) for part in known)) > 0:
                known.append(np.zeros((missing, across), dtype=np.int64))
    whole = {index: np.concatenate(parts) for index, parts in counts.items()}
    return ClassIndex(shape=(rows, columns), side_px=side, counts=whole)
