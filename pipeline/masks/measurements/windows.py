"""The blocks of an image as windows that overlap: pixels meet their neighbours, although each block is read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, slice]  # rows and columns


def windows(
    read: Iterable[tuple[Region, Sequence[NDArray[Any]]]], width: int, height: int, *, overlap: int
) -> Iterator[tuple[int, int, list[NDArray[Any]]]]:
    """Yield each block with the rows above it and the columns to its left, and the place of its first pixel.

    Beyond the image, all is 0; windows at its end have as many rows and columns of that.

    Parameters
    ----------
    read : iterable
        Blocks, row by row of blocks: their region, and its pixels in one or more planes, (rows, columns) each.
    width, height : int
        Of the image.
    overlap : int
        Rows above and columns to the left of a block.

    Yields
    ------
    top, left, planes
        Row and column of the first pixel of the block, which is pixel (overlap, overlap) of its window.
    """
    edges: list[_Edges] = []
    for (rows, columns), planes in read:
        edges = edges or [_Edges(width, overlap, plane.dtype) for plane in planes]
        ends = rows.stop == height, columns.stop == width
        joined = [edge.join(plane, columns, ends) for edge, plane in zip(edges, planes, strict=True)]
        yield rows.start, columns.start, joined


class _Edges:
    """What the next windows of a plane need of the blocks before."""

    def __init__(self, width: int, overlap: int, dtype: np.dtype[Any]) -> None:
        self.overlap = overlap
        self.above, self.last = np.zeros((2, overlap, width + overlap), dtype)  # ends of two rows of blocks
        self.beside = np.zeros((0, overlap), dtype)

    def join(self, block: NDArray[Any], columns: slice, ends: tuple[bool, bool]) -> NDArray[Any]:
        """Return the window of a block; ``ends`` says whether rows and columns end with it."""
        if columns.start == 0:
            self.above, self.last = self.last, self.above
        more, (height, width) = self.overlap, block.shape
        window = np.zeros((height + more * (1 + ends[0]), width + more * (1 + ends[1])), block.dtype)
        window[:more, : width + more] = self.above[:, columns.start : columns.stop + more]
        window[more : height + more, more : width + more] = block
        if columns.start:
            window[more : height + more, :more] = self.beside
        self.last[:, columns.start + more : columns.stop + more] = window[height : height + more, more : width + more]
        self.beside = window[more : height + more, width : width + more].copy()
        return window
