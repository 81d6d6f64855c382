"""Landscapes that separate objects, and the rules by which their basins are merged: objects come out.

``distance``: the deeper inside its object the network takes a pixel to be, the lower it lies. Each connected region
above the threshold ``seed`` is a seed, and what has none joins the others. Two seeds are two objects if the distance
falls below a share of the shallower one between them, the ``neck``: else noise of the network would be objects. A part
that is small beside its neighbour is no object of its own either.

``partition``: the more likely a pixel belongs to the first class (a membrane), the higher it lies. Basins that are
shallow merge, then parts whose common border is low on average: a gap in a membrane is low, but short. What is left is
the image divided into cells, without gaps.

References
----------
Nunez-Iglesias et al. (2013), doi:10.1371/journal.pone.0071715 (agglomeration by the mean of a border).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline.base.arrays import Array, LazyArray, widened
from pipeline.masks.basins import HIGHEST, Basins, find_basins, first_of_each, merge_basins, merge_small, root_of_each

_DEEPEST = 255  # of a stored distance
_SMALL = 0.1  # of the neighbour
_SMOOTH_PX = 1.0
_SHALLOW = 0.01  # a basin that the probability rises less above is noise
_REACH_PX = 4  # of the Gaussian

Parts = tuple[Basins, NDArray[np.int64]]


def part_by_distance(distance: Array, classes: Array, *, seed: float, neck: float, scratch: Path) -> Parts:
    """Divide each class but background by the distance that a network has learned.

    Parameters
    ----------
    distance : (rows, columns) uint8 array
        Distance to the border of the object, as a share of its largest: 255 is 1.
    classes : (rows, columns) array of uint8
        Class map, 0 = background.
    seed, neck : float
        Between 0 and 1.
    scratch : Path
        A folder for provisional numbers; it must exist as long as the result.

    Returns
    -------
    Basins
    (n + 1,) int64 array
        Part of each basin, 4-connected; 0 for 0.
    """
    heights = LazyArray(distance.shape, np.dtype(np.uint8), lambda *key: _DEEPEST - np.asarray(distance[key]))
    basins = find_basins(heights, classes, everywhere=False, scratch=scratch)
    level = _DEEPEST * seed

    def is_one(height: int, lowest: int) -> bool:
        narrowest, deepest = _DEEPEST - height, _DEEPEST - lowest
        return narrowest > level or deepest <= level or narrowest >= neck * deepest

    parts = merge_basins(basins, is_one)
    return basins, merge_small(basins, parts, share=_SMALL)


def part_plane(probability: Array, classes: Array, *, border: float, scratch: Path) -> Parts:
    """Divide the whole image along the highest probabilities of the first class.

    Parameters
    ----------
    probability : (rows, columns) float array
        Of the first class, 0 to 1. It is smoothed by a Gaussian of 1 px.
    classes : (rows, columns) array of uint8
        Class map, 0 or 1.
    border : float
        Two cells are one if the mean probability along their common border is lower than this.
    scratch : Path
        As for :func:`part_by_distance`, and so is what is returned; parts without a pixel of class 1 are 0.
    """
    heights = LazyArray(probability.shape, np.dtype(np.uint16), lambda *key: _smoothed(probability, key))
    basins = find_basins(heights, classes, everywhere=True, scratch=scratch)
    parts = merge_basins(basins, lambda pass_, lowest: pass_ - lowest < _SHALLOW * HIGHEST)
    parts = merge_low_borders(basins, parts, below=border * HIGHEST)
    is_object = np.zeros(len(parts), bool)
    is_object[parts[basins.table["class"] > 0]] = True
    return basins, np.where(is_object[parts], parts, 0)


def merge_low_borders(basins: Basins, parts: NDArray[np.int64], *, below: float) -> NDArray[np.int64]:
    """Merge the two parts whose common border is lowest on average, until no border is lower than a limit.

    Of equally low borders, the one comes first whose parts come first in the image.

    Parameters
    ----------
    parts : (n + 1,) int64 array
        From :func:`merge_basins`.
    below : float
        The limit, in units of heights.

    Returns
    -------
    (n + 1,) int64 array
        As ``parts``.
    """
    place, target = first_of_each(basins, parts).tolist(), np.arange(len(parts))
    shared: dict[int, dict[int, Border]] = defaultdict(dict)
    sides = (parts[basins.borders["one"]], parts[basins.borders["other"]])
    columns = (*sides, basins.borders["height"], basins.borders["length"])
    for one, other, height, length in zip(*(column.tolist() for column in columns), strict=True):
        if one != other:
            shared[one][other] = shared[other][one] = _sum((height, length), shared[one].get(other))
    lowest = [
        _ranked(place, one, other, border) for one in shared for other, border in shared[one].items() if one < other
    ]
    heapq.heapify(lowest)
    while lowest and lowest[0][0] < below:
        _, _, _, one, other, border = heapq.heappop(lowest)
        if shared.get(one, {}).get(other) != border:
            continue  # one of them has grown since, or is part of another
        if len(shared[one]) < len(shared[other]):
            one, other = other, one
        target[other], place[one] = one, min(place[one], place[other])
        for beside, border in shared.pop(other).items():
            del shared[beside][other]
            if beside != one:
                shared[one][beside] = shared[beside][one] = _sum(border, shared[one].get(beside))
                heapq.heappush(lowest, _ranked(place, one, beside, shared[one][beside]))
    return root_of_each(target)[parts]


Border = tuple[int, int]  # sum of heights, pairs of pixels


def _sum(border: Border, other: Border | None) -> Border:
    return (border[0] + other[0], border[1] + other[1]) if other else border


def _ranked(place: list[int], one: int, other: int, border: Border) -> tuple[float, int, int, int, int, Border]:
    """Return a border in the order of merging: its mean height, then the places of its parts."""
    one, other = (one, other) if place[one] < place[other] else (other, one)
    return border[0] / border[1], place[one], place[other], one, other, border


def _smoothed(probability: Array, key: tuple[Any, ...]) -> NDArray[np.uint16]:
    """Return a region as heights, smoothed as if the whole image were."""
    around, own = widened(key, _REACH_PX, probability.shape)
    values = np.asarray(probability[around], np.float32)
    smooth = gaussian_filter(values, _SMOOTH_PX, mode="nearest", radius=_REACH_PX)
    heights: NDArray[np.uint16] = np.rint(smooth[own].clip(0, 1) * HIGHEST).astype(np.uint16)
    return heights
