"""Whether a conditional random field improves the classes of a network: compared on its held-back images.

Predictions go in; a table of settings and scores comes out, which ``model.json`` holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.arrays import Array, blocks
from pipeline.metrics.overlap import Counts, confusion, mean_over_classes, per_class
from pipeline.networks.model_card import Refinement
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.masks import MaskConfig
from pipeline.training.comparison.pair_metrics import PairPredictor

# None first: of equally good ones, the first is taken.
_TRIED: list[dict[str, Any] | None] = [
    None,
    {"smoothness": 3.0, "appearance": 0.0},
    *(
        {"smoothness": 1.0, "appearance": appearance, "appearance_intensity": intensity}
        for appearance in (2.0, 5.0, 10.0)
        for intensity in (0.05, 0.15)
    ),
]
_ENOUGH_PX = 2**23  # of held-back images


def compare_refinements(predictor: PairPredictor, pairs: Sequence[TrainingPair], *, scratch: Path) -> list[Refinement]:
    """Compare fields, and none, on annotated images that have 8 Mpx together.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        Held back from the training of the network; those that would exceed the limit are left out.
    scratch : Path
        A folder for temporary files.

    Returns
    -------
    list of Refinement
        Empty if every image is larger than that.
    """
    tried = [MaskConfig.model_validate({"instances": "none", "crf": settings}) for settings in _TRIED]
    num_classes = len(predictor.card.classes)
    counts = np.zeros((len(tried), num_classes, num_classes), np.int64)
    for predicted, folder in predictor.predict_up_to(_ENOUGH_PX, pairs, scratch, keep={"probabilities"}):
        for number, masks in enumerate(tried):
            found = predicted.masks(masks, pixel_um2=None, scratch=folder / str(number))
            counts[number] += _count(predicted.truth.classes, found.classes, num_classes)
    return [_refinement(*one) for one in zip(_TRIED, counts, strict=True)] if counts.any() else []


def _count(truth: Array, found: Array, num_classes: int) -> Counts:
    parts = (confusion(truth[part], found[part], num_classes=num_classes) for part in blocks(truth.shape))
    return sum(parts, start=np.zeros((num_classes, num_classes), np.int64))


def _refinement(settings: dict[str, Any] | None, counts: Counts) -> Refinement:
    dice = mean_over_classes(per_class("dice", counts)[1:])
    return Refinement(settings=settings, foreground_dice=dice if math.isfinite(dice) else None)


def mean_refinements(tables: Sequence[Sequence[Refinement]]) -> list[Refinement]:
    """Return the mean of several tables of the same settings; nothing if one has none, or lacks a value."""
    found = []
    for same in zip(*tables, strict=False):
        scores = [one.foreground_dice for one in same if one.foreground_dice is not None]
        if len(scores) == len(tables) and all(one.settings == same[0].settings for one in same):
            found.append(Refinement(settings=same[0].settings, foreground_dice=float(np.mean(scores))))
    return found
