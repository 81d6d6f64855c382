"""Runs of equal ids in the rows of a label image: how the pixels of thousands of objects are summed up at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Runs:
    """The runs of all objects of a block: object by object by ascending id, those of each in the order of the image.

    Attributes
    ----------
    ids : (m,) array
        Objects in the block, ascending.
    groups : (m,) array
        The first run of each.
    first, lengths : (r,) arrays
        Place of the first pixel of each run in the flattened block, and its pixels.
    """

    ids: NDArray[np.uint32]
    groups: NDArray[np.intp]
    first: NDArray[np.intp]
    lengths: NDArray[np.intp]

    def total(self, values: NDArray[Any], add: np.ufunc = np.add) -> NDArray[Any]:
        """Return the sum of a value per run (or its maximum, ...) over the runs of each object."""
        of_objects: NDArray[Any] = add.reduceat(values, self.groups)
        return of_objects

    @property
    def counts(self) -> NDArray[np.intp]:
        """Runs of each object."""
        return np.diff(self.groups, append=len(self.first))

    def of_pixels(self, values: NDArray[Any], add: np.ufunc = np.add, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Return the same of a value per pixel, in the order of ``pixels``."""
        of_objects: NDArray[Any] = add.reduceat(values, self.starts, dtype=dtype)
        return of_objects

    @cached_property
    def areas(self) -> NDArray[np.intp]:
        """Pixels of each object in the block."""
        return self.total(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """The first pixel of each object in ``pixels``."""
        return np.cumsum(self.areas) - self.areas

    @cached_property
    def pixels(self) -> NDArray[np.intp]:
        """Places of all pixels of the objects in the flattened block, in the order of the runs."""
        before = np.cumsum(self.lengths) - self.lengths
        return np.repeat(self.first - before, self.lengths) + np.arange(self.lengths.sum())


def find_runs(numbers: NDArray[np.uint32]) -> Runs:
    """Return the runs of a (rows, columns) block of object ids, 0 = background."""
    begins = np.ones(numbers.shape, dtype=bool)
    np.not_equal(numbers[:, 1:], numbers[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    ids = numbers.ravel()[starts]
    inside = np.flatnonzero(ids)
    order = inside[np.argsort(ids[inside], kind="stable")]
    groups = np.flatnonzero(np.diff(ids[order], prepend=0))
    return Runs(ids[order][groups], groups, starts[order], np.diff(starts, append=numbers.size)[order])
