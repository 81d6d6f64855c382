"""The boundary weight map of the U-Net paper: what the loss pays for a pixel.

w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)), equation 2 of Ronneberger, Fischer, Brox (2015),
doi:10.1007/978-3-319-24574-4_28, with d1 and d2 the Euclidean distances to the nearest and second nearest object.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

NEGLIGIBLE = 1e-6  # the boundary term is left out where it is below this


def class_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return w_c: inverse to the frequency of each class in the training set, 1 on average over its pixels.

    Parameters
    ----------
    counts : (classes,) int64 array
        Pixels of each class in the whole training set; a class without pixels gets weight 1.
    """
    present = counts > 0
    balanced = counts.sum() / (present.sum() * np.maximum(counts, 1))
    return np.where(present, balanced, 1.0)


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
        Pixels that are not annotated (255) have no class weight.
    objects : (rows, columns) int32 array
        Ids, 0 = background; with fewer than two objects there is no boundary term.
    class_weight : (number of classes,) float64 array
        w_c.
    boundary_weight, sigma_px : float
        w0 and sigma of the paper (10 and 5 px there).

    Returns
    -------
    (rows, columns) float32 array
        Equal to the formula to 1e-6, the negligible part of the boundary term.
    """
    weights = np.pad(class_weight, (0, 256 - len(class_weight)))[classes]
    if boundary_weight > NEGLIGIBLE:
        reach_px = sigma_px * math.sqrt(2 * math.log(boundary_weight / NEGLIGIBLE))
        distance_sum = _two_nearest(objects, reach_px=reach_px)
        weights = weights + boundary_weight * np.exp(-(distance_sum**2) / (2 * sigma_px**2))
    return weights.astype(np.float32)


def _two_nearest(objects: NDArray[np.int32], *, reach_px: float) -> NDArray[np.float64]:
    """Return d1 + d2, exact up to ``reach_px`` and infinite where d2 is beyond it.

    Every object is transformed once, in its bounding box widened by the reach: the work grows with the area of the
    objects' neighbourhoods, not with objects times pixels.
    """
    nearest = np.full(objects.shape, np.inf)
    second = np.full(objects.shape, np.inf)
    margin = math.ceil(reach_px)
    for index, box in enumerate(scipy.ndimage.find_objects(objects), start=1):
        if box is None:
            continue
        around = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        distance = scipy.ndimage.distance_transform_edt(objects[around] != index)
        distance[distance > reach_px] = np.inf
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    distance_sum: NDArray[np.float64] = nearest + second
    return distance_sum
