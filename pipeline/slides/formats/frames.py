"""Files that store one plane after the other as one array: a plane, or a region of it, is decoded when it is read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import LazyArray
from pipeline.slides.formats.image import check_budget

_MOST_KEPT = 16  # planes; windows of one slide read the same planes again


def array_of_frames(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    read_frame: Callable[[tuple[int, ...]], NDArray[Any]],
    *,
    frame_axes: int,
    budget_bytes: int,
) -> LazyArray:
    """Return the planes of a file as one array.

    Parameters
    ----------
    shape : tuple of int
        Of the whole array; the last ``frame_axes`` axes are those of a plane.
    read_frame : callable
        Returns the plane at the index along the leading axes.
    frame_axes : int
        2 (rows, columns), or 3 with the samples of a colour.
    budget_bytes : int
        Most memory that a plane may take.
    """
    frame = shape[len(shape) - frame_axes :]
    frame_bytes = max(1, math.prod(frame) * dtype.itemsize)
    check_budget("a plane", frame_bytes, budget_bytes)
    cached = lru_cache(maxsize=min(_MOST_KEPT, budget_bytes // frame_bytes))(read_frame)
    one_at_a_time = Lock()  # these libraries seek and read in one open file

    def read_plane(index: tuple[int, ...], key: tuple[Any, ...]) -> NDArray[Any]:
        with one_at_a_time:
            plane = cached(index)
        if plane.shape != frame or plane.dtype != dtype:
            raise ValueError(f"a plane of {plane.shape} {plane.dtype}, the header says {frame} {dtype}; copy it again")
        return np.array(plane[key])  # a copy, since the plane may be a part of the open file

    return array_of_planes(shape, dtype, read_plane, plane_axes=frame_axes)


def array_of_planes(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    read_plane: Callable[[tuple[int, ...], tuple[Any, ...]], NDArray[Any]],
    *,
    plane_axes: int,
    in_strips: bool = False,
) -> LazyArray:
    """Return planes that are read by region as one array.

    Parameters
    ----------
    shape : tuple of int
        Of the whole array; the last ``plane_axes`` axes are those of a plane.
    read_plane : callable
        Returns a region (an integer or a slice for each axis of a plane) of the plane at an index along the others.
    in_strips : bool
        See :class:`pipeline.base.arrays.LazyArray`.
    """
    leading = len(shape) - plane_axes

    def read(*key: Any) -> NDArray[Any]:
        places = [
            range(length)[part] if isinstance(part, slice) else range(part, part + 1)
            for part, length in zip(key[:leading], shape, strict=False)
        ]
        read = [read_plane(index, key[leading:]) for index in itertools.product(*places)]
        planes = read[0][None] if len(read) == 1 else np.stack(read)
        kept = [len(place) for place, part in zip(places, key, strict=False) if isinstance(part, slice)]
        return planes.reshape(*kept, *planes.shape[1:])

    return LazyArray(shape, dtype, read, in_strips)
