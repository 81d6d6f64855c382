"""Objects that a network detected, as arrays: each has a class, a score and a mask; logits are painted from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LEAST_PROBABILITY = 1e-6


class Detection(NamedTuple):
    """An object: its class (from 1), its score in 0 to 1, and its mask.

    ``mask`` is (rows, columns) bool, cut to the bounding box of its pixels; ``top`` and ``left`` are its place.
    """

    number: int
    score: float
    top: int
    left: int
    mask: NDArray[np.bool_]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the mask."""
        rows, columns = self.mask.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the middle of its box; that of the first pixel is (0.5, 0.5)."""
        rows, columns = self.mask.shape
        return self.top + rows / 2, self.left + columns / 2

    def moved(self, rows: int, columns: int) -> Detection:
        """Return the object at another place."""
        return self._replace(top=self.top + rows, left=self.left + columns)

    def within(self, shape: tuple[int, int]) -> Detection | None:
        """Return the part of the object that lies in an image of this shape, None if nothing does."""
        top, left = max(-self.top, 0), max(-self.left, 0)
        inside = self.mask[top : max(shape[0] - self.top, 0), left : max(shape[1] - self.left, 0)]
        return detection_of(self.number, self.score, self.top + top, self.left + left, inside)


def detection_of(number: int, score: float, top: int, left: int, mask: NDArray[np.bool_]) -> Detection | None:
    """Return a detection whose mask is cut to the box of its pixels; None without any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Detection(number, score, top + int(rows[0]), left + int(columns[0]), cut)


def paint_logits(found: Sequence[Detection], shape: tuple[int, int], *, num_classes: int) -> NDArray[np.float32]:
    """Return the logarithm of the probability of each class at each pixel, (num_classes, rows, columns).

    The probability of a class is the highest score of an object of it there; that of the first class, 1 less the
    highest score of any.
    """
    values = np.zeros((num_classes, *shape), np.float32)
    for one in found:
        place = values[one.number][one.slices]
        place[one.mask] = np.maximum(place[one.mask], one.score)
    values[0] = 1 - values[1:].max(axis=0, initial=0)
    logits: NDArray[np.float32] = np.log(np.maximum(values, _LEAST_PROBABILITY))
    return logits
