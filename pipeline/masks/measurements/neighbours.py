"""Neighbours of objects: how far the nearest of each class is, and how many are near."""

from __future__ import annotations

import numpy as np
import scipy  # loads scipy.spatial when it is used: the stage starts sooner without
from numpy.typing import NDArray


def nearest(places: NDArray[np.float64], classes: NDArray[np.uint8], of_class: int) -> NDArray[np.float64]:
    """Return the distance from each of n places to the nearest other place of a class, (n,); NaN if there is none.

    Examples
    --------
    >>> nearest(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), np.array([1, 1, 2]), 1).tolist()
    [5.0, 5.0, 1.0]
    """
    distances = np.full(len(places), np.inf)
    own = classes == of_class
    if own.any():
        tree = scipy.spatial.KDTree(places[own])
        distances[~own] = tree.query(places[~own])[0]
        distances[own] = tree.query(places[own], k=[2])[0][:, 0]  # the nearest is the object itself
    return np.where(np.isfinite(distances), distances, np.nan)


def count_within(places: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Return how many others are at most ``radius`` away from each of n places."""
    if not len(places):
        return np.zeros(0, np.int64)
    counts: NDArray[np.int64] = scipy.spatial.KDTree(places).query_ball_point(places, radius, return_length=True) - 1
    return counts
