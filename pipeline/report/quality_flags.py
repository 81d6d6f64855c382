"""Quality flags: warnings about samples that are done, without a reference.

A number is an outlier when it is more than four robust deviations (1.4826 times the median absolute deviation) from the
median of the numbers it is compared with, and outside their range by more than a tenth of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

LARGEST_MISMATCH = 0.02
FEWEST = 8  # numbers to compare with
_DEVIATIONS = 4.0
_MARGIN = 0.1  # of the range


@dataclass(frozen=True)
class Scale:
    """How a number is compared: its scale, the smallest spread that matters on it, the messages for low and high."""

    transform: Callable[[float], float]
    least_spread: float
    low: str
    high: str


def _log(value: float) -> float:
    return math.log10(max(value, 1e-4))


APPEARANCE: Mapping[str, Scale] = {
    "intensity": Scale(_log, 0.05, "darker than the training images", "brighter than the training images"),
    "contrast": Scale(_log, 0.05, "less contrast than the training images", "more contrast than the training images"),
    "skewness": Scale(
        math.asinh,
        0.1,
        "other intensities than the training images (inverted or another stain?)",
        "other intensities than the training images (mostly empty?)",
    ),
    "focus": Scale(float, 0.05, "less sharp than the training images", ""),
    "saturated": Scale(float, 0.01, "", "more saturated pixels than the training images"),
    "tissue": Scale(float, 0.1, "less in it than in the training images", ""),
    "colour": Scale(float, 0.01, "another colour than the training images", "another colour than the training images"),
}
COHORT: Mapping[str, Scale] = {
    "objects_per_mpx": Scale(_log, 0.05, "far fewer objects than the others", "far more objects than the others"),
    "median_area_px": Scale(_log, 0.05, "far smaller objects than the others", "far larger objects than the others"),
    "uncertain": Scale(float, 0.01, "", "far more uncertain pixels than the others"),
}


def flags_of(
    row: Mapping[str, float],
    cohort: Mapping[str, list[float]],
    appearance: Mapping[str, float],
    known: list[Mapping[str, float]],
) -> list[str]:
    """Return the quality warnings of a sample.

    Parameters
    ----------
    row : mapping of float
        ``objects_per_mpx``, ``median_area_px``, ``uncertain`` and ``tile_mismatch`` of the sample; NaN where unknown.
    cohort : mapping of list of float
        The same of all samples of the network, this one included.
    appearance : mapping of float
        From :func:`pipeline.slides.appearance.appearance`.
    known : list of mappings of float
        The same of the images that the network was trained on.
    """
    found = []
    for name, value in appearance.items():
        if scale := APPEARANCE.get(name.partition("_")[0]):
            found.append(outlier_message(value, [other[name] for other in known if name in other], scale))
    found += [outlier_message(row[name], _others(cohort[name], row[name]), scale) for name, scale in COHORT.items()]
    if row["tile_mismatch"] > LARGEST_MISMATCH:
        found.append(f"tiles label more than {LARGEST_MISMATCH:.0%} of their shared pixels differently")
    return list(dict.fromkeys(flag for flag in found if flag))


def _others(values: list[float], own: float) -> list[float]:
    """Return the values without one that equals ``own``."""
    place = values.index(own) if own in values else len(values)
    return values[:place] + values[place + 1 :]


def outlier_message(value: float, others: Iterable[float], scale: Scale) -> str:
    """Return the message of ``scale`` if ``value`` is an outlier among ``others``, else an empty string.

    NaN in ``others`` is left out; with fewer than eight numbers nothing is an outlier.
    """
    known = np.asarray([scale.transform(other) for other in others if not math.isnan(other)])
    if len(known) < FEWEST or math.isnan(value):
        return ""
    place, median = scale.transform(value), float(np.median(known))
    spread = max(1.4826 * float(np.median(np.abs(known - median))), scale.least_spread)
    margin = max(_MARGIN * float(np.ptp(known)), scale.least_spread)
    if place < min(median - _DEVIATIONS * spread, known.min() - margin):
        return scale.low
    return scale.high if place > max(median + _DEVIATIONS * spread, known.max() + margin) else ""
