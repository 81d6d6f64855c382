"""Quality flags: warnings about samples that have a mask, and about their references.

A number is an outlier when it is more than four robust deviations (1.4826 times the median absolute deviation) from the
median of the numbers it is compared with, and outside their range by more than a tenth of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.names import HEADLINE
from pipeline.networks.model_card import ModelCard

LARGEST_MISMATCH = 0.02
MOST_UNCERTAIN = 0.4
LEAST_AGREEMENT = 0.5
FEWEST = 8  # numbers to compare with
_DEVIATIONS = 4.0
_MARGIN = 0.1  # of the range
_MISMATCH = f"tiles label more than {LARGEST_MISMATCH:.0%} of their shared pixels differently"
LEARNED = "the network was trained on this image: left out of means, ranking and tests"
_POOR = 0.5  # foreground Dice
_FAR = 4.0  # times smaller, more or more alike than annotated objects
_MANY = 20  # objects, from which on their sizes are compared
_UNCERTAIN = f"the network is uncertain about more than {MOST_UNCERTAIN:.0%} of the pixels"
_DISAGREES = "its reference: most pixels have another class than in the mask (inverted, or of another image?)"


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
_DENSITY = Scale(_log, 0.05, "far fewer objects than the others", "far more objects than the others")
_AREA = Scale(_log, 0.05, "far smaller objects than the others", "far larger objects than the others")
COHORT: Mapping[str, Scale] = {
    "objects_per_mm2": _DENSITY,
    "median_area_um2": _AREA,
    "objects_per_mpx": _DENSITY,  # of slides without a pixel size
    "median_area_px": _AREA,
    "uncertain": Scale(float, 0.01, "", "far more uncertain pixels than the others"),
    "truth_share": Scale(
        _log,
        0.1,
        "its reference: far less foreground than the others",
        "its reference: far more foreground than the others (inverted?)",
    ),
    "truth_per_mpx": Scale(
        _log, 0.1, "its reference: far fewer objects than the others", "its reference: far more objects than the others"
    ),
}


def flags_of(
    samples: Sequence[Mapping[str, float]],
    appearances: Sequence[Mapping[str, float]],
    known: Sequence[Mapping[str, float]],
) -> list[list[str]]:
    """Return the quality warnings of each sample of a network.

    Parameters
    ----------
    samples : sequence of mappings of float
        ``uncertain`` and ``tile_mismatch`` of each; ``objects_per_mm2`` and ``median_area_um2``, or ``objects_per_mpx``
        and ``median_area_px`` if the size of its pixels is not known, so that slides of different scales are never
        compared in pixels. Of its reference ``truth_share`` (of the pixels that are foreground), ``truth_per_mpx``
        (objects), ``agreement`` (share of the pixels with the class of the mask) and the foreground Dice. NaN or
        missing where unknown.
    appearances : sequence of mappings of float
        Of each, from :func:`pipeline.slides.appearance.appearance`.
    known : sequence of mappings of float
        The same of the images that the network was trained on; from fewer than eight, a sample must be further away.
        Without any, each sample is compared with the others.
    """
    found = []
    for name in dict.fromkeys(name for look in appearances for name in look):
        if scale := APPEARANCE.get(name.partition("_")[0]):
            values, seen = ([look.get(name, math.nan) for look in looks] for looks in (appearances, known))
            found.append(outliers(values, scale, seen if known else None))
    found += [outliers([sample.get(name, math.nan) for sample in samples], scale) for name, scale in COHORT.items()]
    found.append([_MISMATCH if sample["tile_mismatch"] > LARGEST_MISMATCH else "" for sample in samples])
    found.append([_UNCERTAIN if sample["uncertain"] > MOST_UNCERTAIN else "" for sample in samples])
    found.append([_DISAGREES if sample.get("agreement", math.nan) < LEAST_AGREEMENT else "" for sample in samples])
    found.append([_bad_score(sample.get(HEADLINE, math.nan)) for sample in samples])
    return [list(dict.fromkeys(filter(None, flags))) for flags in zip(*found, strict=True)]


def against_training(sample: Mapping[str, float], card: ModelCard) -> list[str]:
    """Return warnings about a sample whose network did badly in validation, or whose objects are unlike the annotated.

    Parameters
    ----------
    sample : mapping of float
        ``objects``, ``median_area_px``, ``per_mpx`` (objects) and ``spread`` (standard deviation of the logarithm, base
        2, of their areas); NaN where unknown.
    card : ModelCard
        Of the network. Cards of earlier versions know nothing of the annotated objects.
    """
    score, known = card.metrics.get(HEADLINE), card.objects
    is_poor = score is not None and score < _POOR
    flags = [f"its network: foreground Dice {score:.2f} on the held-back images"] if is_poor else []
    if not known or not sample["objects"]:
        return flags
    if sample["median_area_px"] < known["small_area_px"] / _FAR:
        flags.append("far smaller objects than the annotated ones")
    if sample["per_mpx"] > known["most_per_mpx"] * _FAR and sample["objects"] >= _MANY:
        flags.append("far more objects than annotated")
    if sample["spread"] < known["spread"] / _FAR and sample["objects"] >= _MANY:
        flags.append("objects of nearly one size, unlike the annotated ones")
    return flags


def _bad_score(score: float) -> str:
    return f"foreground Dice {score:.2f} against its reference" if score < _POOR else ""


def outliers(values: Sequence[float], scale: Scale, known: Sequence[float] | None = None) -> list[str]:
    """Return the message of each value that is an outlier among ``known``, or among the other values; else "".

    NaN is no outlier, and is left out of what is compared with. With fewer than eight other values nothing is an
    outlier; from n < 8 numbers in ``known``, a value must be 1 + 2/n times as far away as from more.
    """
    if known is not None:
        lowest, highest = _limits(known, scale, fewest=1)
        return [_message(value, lowest, highest, scale) for value in values]
    messages = [""] * len(values)
    ordered = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    for value, place in ordered[:1] + ordered[1:][-1:]:  # no other is outside the range of the others
        messages[place] = _message(value, *_limits([*values[:place], *values[place + 1 :]], scale), scale)
    return messages


def _limits(known: Sequence[float], scale: Scale, *, fewest: int = FEWEST) -> tuple[float, float]:
    """Return between which transformed numbers a number is no outlier."""
    numbers = np.asarray([scale.transform(number) for number in known if not math.isnan(number)])
    if len(numbers) < fewest:
        return -math.inf, math.inf
    median, times = float(np.median(numbers)), 1 if len(numbers) >= FEWEST else 1 + 2 / len(numbers)
    spread = times * _DEVIATIONS * max(1.4826 * float(np.median(np.abs(numbers - median))), scale.least_spread)
    margin = times * max(_MARGIN * float(np.ptp(numbers)), scale.least_spread)
    return min(median - spread, numbers.min() - margin), max(median + spread, numbers.max() + margin)


def _message(value: float, lowest: float, highest: float, scale: Scale) -> str:
    if math.isnan(value) or lowest <= scale.transform(value) <= highest:
        return ""
    return scale.low if scale.transform(value) < lowest else scale.high
