"""Statistics of the intensities of objects: sums that are merged over blocks, and medians of whole objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import skimage  # loads skimage.color when it is used: the stage starts sooner without
from numpy.typing import NDArray

from pipeline.masks.measurements.runs import Runs

_DARKEST = 1e-6  # share of light, in scikit-image

Values = list[NDArray[Any]]  # of each channel, an array of pixels

_SUMS = np.dtype([(name, "f8") for name in ("sum", "deviation", "min", "max", "edge")])


def values_of(planes: Sequence[NDArray[Any]], places: NDArray[np.intp], *, stains: bool) -> Values:
    """Return the intensities of pixels, by channel.

    Parameters
    ----------
    planes : sequence of (rows, columns) arrays
        Channels; with ``stains``, the last three are red, green and blue.
    places : (n,) array
        Of the pixels, in the flattened planes.
    stains : bool
        Return hematoxylin, eosin and DAB instead of the last three.
    """
    values = [plane.ravel()[places] for plane in planes]
    values = [own.astype(np.uint8) if own.dtype == bool else own for own in values]
    return [*values[:-3], *_stains(values[-3:])] if stains else values


def _stains(colours: Values) -> Values:
    """Return hematoxylin, eosin and DAB (Ruifrok and Johnston 2001), as :func:`skimage.color.rgb2hed`.

    Logarithms are looked up: of 8 or 16 bits there are fewer than pixels.
    """
    highest = np.iinfo(colours[0].dtype).max
    depths = np.log(np.maximum(np.arange(highest + 1) / highest, _DARKEST)) / np.log(_DARKEST)
    red, green, blue = (depths[own] for own in colours)
    weights = skimage.color.hed_from_rgb.T
    return [np.maximum(red * of_red + green * of_green + blue * of_blue, 0) for of_red, of_green, of_blue in weights]


def sum_up(values: NDArray[Any], runs: Runs, edge: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the sums of a channel over each object of a block, to be merged by :class:`Sums`.

    Parameters
    ----------
    values, edge : (pixels,) arrays
        Intensities of the pixels of the objects, and which of these lie on the boundary.
    """
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    sums = np.empty(len(runs.ids), _SUMS)
    total = runs.of_pixels(values, dtype=kind)
    sums["sum"] = total
    sums["min"] = runs.of_pixels(values, np.minimum)
    sums["max"] = runs.of_pixels(values, np.maximum)
    sums["edge"] = runs.of_pixels(np.where(edge, values, 0), dtype=kind)
    sums["deviation"] = runs.of_pixels((values - np.repeat(total / runs.areas, runs.areas)) ** 2)
    return sums


class Sums:
    """Sums of n objects in some channels, of the blocks that were added so far."""

    def __init__(self, objects: int, channels: int) -> None:
        self.pixels = np.zeros(objects, np.int64)
        self._sums = np.zeros((channels, objects), _SUMS)
        self._sums["min"], self._sums["max"] = np.inf, -np.inf

    def add(self, indices: NDArray[np.intp], areas: NDArray[np.intp], sums: Sequence[NDArray[Any]]) -> None:
        """Add those of a block; ``indices`` and ``areas`` are of its objects.

        Squared deviations are from the means of blocks; their distance from the mean of both is added (Chan, Golub and
        LeVeque 1983, doi:10.1080/00031305.1983.10483115).
        """
        before = self.pixels[indices]
        for own, more in zip(self._sums, sums, strict=True):
            so_far = own[indices]
            known = np.maximum(before, 1)
            apart = np.where(before > 0, more["sum"] / areas - so_far["sum"] / known, 0)
            so_far["deviation"] += more["deviation"] + apart**2 * (before * areas / (before + areas))
            so_far["min"] = np.minimum(so_far["min"], more["min"])
            so_far["max"] = np.maximum(so_far["max"], more["max"])
            so_far["sum"] += more["sum"]
            so_far["edge"] += more["edge"]
            own[indices] = so_far
        self.pixels[indices] = before + areas

    @property
    def totals(self) -> NDArray[np.float64]:
        """Sums of intensities, (channels, n)."""
        totals: NDArray[np.float64] = self._sums["sum"]
        return totals

    def statistics(self, edge_pixels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return the measurements by name, (channels, n) each; ``edge_pixels`` are those on the boundary, (n,)."""
        return {
            "mean": self.totals / self.pixels,
            "sd": np.sqrt(self._sums["deviation"] / self.pixels),
            "min": self._sums["min"],
            "max": self._sums["max"],
            "integrated": self.totals,
            "edge_mean": self._sums["edge"] / edge_pixels,
        }


def median(values: NDArray[Any]) -> float:
    """Return the median; faster than numpy's for a few hundred pixels."""
    middle = len(values) // 2
    ranked = values.copy()
    ranked.partition(middle)
    high = float(ranked[middle])
    return high if len(values) % 2 else (float(ranked[:middle].max()) + high) / 2
