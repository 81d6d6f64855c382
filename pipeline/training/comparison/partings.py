"""Which way to tell objects apart suits a network: all are compared on the images held back from its training.

Predictions go in; a table of settings and scores comes out, which ``model.json`` holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import models
from pipeline.base.arrays import blocks
from pipeline.masks.instances import with_areas
from pipeline.metrics.evaluation import LabelledImage, compare_objects
from pipeline.metrics.objects import Matching
from pipeline.networks.model_card import ModelCard, Parting
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import DETECTED, DISTANCE, MaskConfig
from pipeline.training.comparison.pair_metrics import PairPredictor

# Simple ones first: of equally good ones, the first is taken.
_WAYS: list[dict[str, Any]] = [
    {"instances": "components"},
    *({"instances": "watershed", "neck": neck} for neck in (0.6, 0.65, 0.75, 0.85, 0.9)),
    *(
        {"instances": DISTANCE, "seed": seed, "neck": neck}
        for seed in (0.3, 0.4, 0.5, 0.6)
        for neck in (0.65, 0.75, 0.85)
    ),
]
_PARTITIONS: list[dict[str, Any]] = [{"instances": "partition", "border": border} for border in (0.2, 0.3, 0.4, 0.5)]
_IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_ENOUGH_PX = 2**25  # of held-back images


@dataclass
class _Score:
    """How well objects are told apart under some settings, image by image."""

    settings: dict[str, Any]
    matchings: list[list[Matching]] = dataclasses.field(default_factory=list)
    rand_errors: list[float] = dataclasses.field(default_factory=list)

    def add(self, truth: LabelledImage, predicted: LabelledImage) -> None:
        overlaps, divided = compare_objects(truth, predicted, list(blocks(truth.classes.shape)))
        self.matchings.append([overlaps.match(iou) for iou in _IOUS])
        self.rand_errors.append(divided.adapted_rand_error)

    def result(self) -> Parting:
        """Return F1 of the objects of all images together, and the mean Rand error of images with objects."""
        sums = [
            (2 * sum(one.matched for one in at), sum(one.false_positive + one.false_negative for one in at))
            for at in zip(*self.matchings, strict=True)
        ]
        f1 = [matched / (matched + wrong) for matched, wrong in sums if matched + wrong]
        rand = [error for error in self.rand_errors if math.isfinite(error)]
        return Parting(
            settings=self.settings,
            f1=float(np.mean(f1)) if f1 else None,
            rand=float(np.mean(rand)) if rand else None,
        )


def compare_partings(
    predictor: PairPredictor, pairs: Sequence[TrainingPair], *, scratch: Path, field: CrfConfig | None = None
) -> list[Parting]:
    """Compare the ways to tell objects apart on annotated images that have 32 Mpx together.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        Held back from the training of the network; those that would exceed the limit are left out.
    field : CrfConfig or None
        A random field that the classes come from.
    scratch : Path
        A folder for temporary files.

    Returns
    -------
    list of Parting
        Empty if every image is larger than that.
    """
    small_area_px = predictor.card.objects.get("small_area_px")
    scores = [_Score(settings) for settings in _tried(predictor.card)]
    keep = set().union(*(MaskConfig.model_validate(score.settings).needs for score in scores))
    keep |= {"probabilities"} if field else set()
    for predicted, folder in predictor.predict_up_to(_ENOUGH_PX, pairs, scratch, keep=keep):
        shown = predicted.refined(field, scratch=folder / "refined") if field else predicted
        for number, score in enumerate(scores):
            masks = with_areas(MaskConfig.model_validate(score.settings), small_area_px)
            score.add(shown.truth, shown.masks(masks, pixel_um2=None, scratch=folder / str(number)))
    found = [score.result() for score in scores if score.matchings]
    with_field = {"crf": field.model_dump(exclude_defaults=True)} if field else {}
    return [replace(one, settings=one.settings | with_field) for one in found]


def _tried(card: ModelCard) -> list[dict[str, Any]]:
    """Return the settings that are compared: without specks, if it is known how large objects are.

    A network that detects objects is measured with these alone.
    """
    if models.detects_objects(card.architecture):
        return [{"instances": DETECTED}]
    ways = [way for way in _WAYS if way["instances"] != DISTANCE or DISTANCE in card.heads]
    if "small_area_px" in card.objects:
        ways = [{"instances": "components"}, *(way | {"min_object_px": "auto"} for way in ways)]
    return ways + (_PARTITIONS if len(card.classes) == 2 else [])


def mean_partings(tables: Sequence[Sequence[Parting]]) -> list[Parting]:
    """Return the mean of several tables: of what all have, where all have a value."""
    found = []
    for one in tables[0] if tables else []:
        same = [other for table in tables for other in table if other.settings == one.settings]
        if len(same) == len(tables):
            f1 = [other.f1 for other in same if other.f1 is not None]
            rand = [other.rand for other in same if other.rand is not None]
            means = [float(np.mean(values)) if len(values) == len(tables) else None for values in (f1, rand)]
            found.append(Parting(settings=one.settings, f1=means[0], rand=means[1]))
    return found
