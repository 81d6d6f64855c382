"""The boundary weight map of the U-Net paper: the weight of each pixel in the loss.

w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)), equation 2 of Ronneberger, Fischer, Brox (2015),
doi:10.1007/978-3-319-24574-4_28, with d1 and d2 the Euclidean distances to the nearest and second nearest object. If
d1 + d2 is larger than the reach, the boundary term is negligible; so a block of labels with a margin of the reach gives
the weights of the whole image. The boundary term is only added to background pixels (docs/decisions/0038).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from pipeline.base.arrays import bands

NEGLIGIBLE = 1e-6  # smaller boundary terms are left out
BLOCK_PX = (1024, 4096)  # rows and columns that are computed at once

Labels = tuple[NDArray[np.uint8], NDArray[np.int32]]

_FAR = 2**29  # a squared distance beyond any reach, px²


def class_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return w_c: inverse to the frequency of each class in the training set, with mean 1 over its pixels.

    Parameters
    ----------
    counts : (classes,) int64 array
        Pixels of each class in the whole training set; a class without pixels gets weight 1.
    """
    present = counts > 0
    balanced = counts.sum() / (present.sum() * np.maximum(counts, 1))
    return np.where(present, balanced, 1.0)


def reach_px(*, boundary_weight: float, sigma_px: float) -> int:
    """Return the largest distance at which an object has a weight that is not negligible: 29 px as published."""
    if boundary_weight <= NEGLIGIBLE:
        return 0
    return math.ceil(sigma_px * math.sqrt(2 * math.log(boundary_weight / NEGLIGIBLE)))


def weight_map(
    classes: NDArray[np.uint8],
    objects: NDArray[np.int32],
    *,
    class_weight: NDArray[np.float64],
    boundary_weight: float,
    sigma_px: float,
) -> NDArray[np.float32]:
    """Return the weight of every pixel.

    Parameters
    ----------
    classes : (rows, columns) uint8 array
        Pixels that are not annotated (255) have weight 0.
    objects : (rows, columns) int32 array
        Ids, 0 = background; without two objects there is no boundary term. Time grows with the largest id, and with
        the area of the bounding boxes, each widened by the reach. Sides up to 16,384 px.
    class_weight : (number of classes,) float64 array
        w_c.
    boundary_weight, sigma_px : float
        w0 and sigma of the paper (10 and 5 px there).

    Returns
    -------
    (rows, columns) float32 array
        Equal to the formula to 1e-6, the negligible part of the boundary term.
    """
    weight_of = np.zeros(256, dtype=np.float32)
    weight_of[: len(class_weight)] = class_weight
    weights: NDArray[np.float32] = weight_of[classes]
    reach = reach_px(boundary_weight=boundary_weight, sigma_px=sigma_px)
    if reach:
        nearest, second = _two_nearest(objects, reach)
        term = np.sqrt(nearest, dtype=np.float32)
        term += np.sqrt(second, dtype=np.float32)
        term *= term
        term *= -1 / (2 * sigma_px**2)
        np.exp(term, out=term)
        term *= boundary_weight
        term *= (second <= reach**2) & (classes < len(class_weight)) & (objects == 0)
        weights += term
    return weights


def weight_bands(
    read: Callable[[slice, slice], Labels],
    shape: tuple[int, int],
    *,
    class_weight: NDArray[np.float64],
    boundary_weight: float,
    sigma_px: float,
    block_px: tuple[int, int] = BLOCK_PX,
) -> Iterator[NDArray[np.float16]]:
    """Yield the weight map of an image of any size in bands of whole rows; a band and a block are in memory.

    Parameters
    ----------
    read : callable
        Returns classes and objects of a region, as in :func:`weight_map`; ids of an object may differ between regions.
    class_weight, boundary_weight, sigma_px
        As in :func:`weight_map`.
    block_px : (rows, columns)
        Rows of a band, and columns of it that are computed at once.

    Yields
    ------
    (rows, columns) float16 array
        Weights above 65,504, the largest value of float16, are clipped.
    """
    margin = reach_px(boundary_weight=boundary_weight, sigma_px=sigma_px)
    for rows in bands(shape[0], block_px[0]):
        band = np.empty((rows.stop - rows.start, shape[1]), dtype=np.float16)
        for columns in bands(shape[1], block_px[1]):
            classes, objects = read(_widened(rows, margin, shape[0]), _widened(columns, margin, shape[1]))
            weights = weight_map(
                classes, objects, class_weight=class_weight, boundary_weight=boundary_weight, sigma_px=sigma_px
            )
            top, left = (min(part.start, margin) for part in (rows, columns))
            inner = weights[top : top + len(band), left : left + columns.stop - columns.start]
            band[:, columns] = np.minimum(inner, np.finfo(np.float16).max)
        yield band


def _widened(part: slice, margin: int, length: int) -> slice:
    return slice(max(part.start - margin, 0), min(part.stop + margin, length))


def _two_nearest(objects: NDArray[np.int32], reach: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the squares of d1 and d2, exact up to the reach, and larger than it elsewhere.

    Each object is transformed once, in its bounding box widened by the reach: the work grows with the area of these
    boxes, not with objects times pixels.
    """
    nearest = np.full(objects.shape, _FAR, dtype=np.int32)
    second = nearest.copy()
    for index, box in enumerate(scipy.ndimage.find_objects(objects), start=1):
        if box is None:
            continue
        around = tuple(_widened(side, reach, length) for side, length in zip(box, objects.shape, strict=True))
        distance = _squared_distance(objects[around] != index)
        first = nearest[around]
        np.minimum(second[around], np.maximum(first, distance), out=second[around])
        np.minimum(first, distance, out=first)
    return nearest, second


def _squared_distance(outside: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the square of the distance to the nearest pixel that is not ``outside``, as exact integers.

    The distances of SciPy are floating point and take twice the time of the indices they are computed from.
    """
    rows, columns = scipy.ndimage.distance_transform_edt(outside, return_distances=False, return_indices=True)
    rows -= np.arange(outside.shape[0], dtype=np.int32)[:, None]
    columns -= np.arange(outside.shape[1], dtype=np.int32)
    rows *= rows
    columns *= columns
    squares: NDArray[np.int32] = np.add(rows, columns, out=rows)
    return squares
