"""Files that store one plane after the other: an array that decodes a plane when a region of it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.formats.image import check_budget

_MOST_KEPT = 16  # planes; windows of one slide read the same planes again


class Frames:
    """Planes as one array.

    Parameters
    ----------
    shape : tuple of int
        Of the whole array; the last ``frame_axes`` axes are those of a plane.
    dtype : dtype
    read : callable
        Returns the plane at the index along the leading axes.
    frame_axes : int
        2 (rows, columns), or 3 with samples of a colour.
    budget_bytes : int
        Most memory that a plane may take.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        read: Callable[[tuple[int, ...]], NDArray[Any]],
        *,
        frame_axes: int,
        budget_bytes: int,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._leading = len(shape) - frame_axes
        self._frame = shape[self._leading :]
        frame_bytes = max(1, math.prod(self._frame) * dtype.itemsize)
        check_budget("a plane", frame_bytes, budget_bytes)
        self._read = lru_cache(maxsize=min(_MOST_KEPT, budget_bytes // frame_bytes))(read)
        self._one_at_a_time = Lock()  # these libraries seek and read in one open file

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        with self._one_at_a_time:
            plane = self._read(key[: self._leading])
        if plane.shape != self._frame or plane.dtype != self.dtype:
            raise ValueError(f"a plane of {plane.shape} {plane.dtype}, the header says {self._frame} {self.dtype}")
        return np.array(plane[key[self._leading :]])  # a copy, since the plane may be a part of the open file
