"""What decides a result: one fingerprint for each stage of a sample, from its inputs, its settings and its network.

The fingerprint of a stage includes that of the stage before. So a result is up to date if its fingerprint is the one
that the run expects, whatever the times of the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.base.errors import SlidemillError
from pipeline.base.files import identity_of, read_json, sha256
from pipeline.project.drop.drop_folder import Sample

# Stages of a sample, in their order, each with its algorithm: a number that is raised when its results change.
ALGORITHMS = {"tile": 6, "predict": 1, "stitch": 3, "objects": 7, "evaluate": 6}
NETWORK_ALGORITHMS = {"weigh": 3, "train": 4, "combine": 2, "validate": 4}
# The stage that each of them, and `verify`, continues; `tile` begins with the slide and the description of the network.
BEFORE = {"predict": "tile", "stitch": "predict", "objects": "stitch", "evaluate": "stitch", "verify": "tile"}
# Settings that do not change a result: a prediction with probabilities or heads serves as one without.
_WITHOUT_EFFECT = {"predict": {"probabilities", "compile", "masks"}}
_OF_PIXELS = {"weigh", "train"}  # stages that take pixels alone
_SIZES = {"fallback_pixel_size_um", "stated_pixel_size_um"}
PIXEL_SIZE = "pixel size in the sample sheet"
REGIONS = "file of regions"
INSIDE = "file of regions for regions.compute: inside"
_OF_TRAINING = {"metrics", "validation", "appearance", "objects", "provenance", "parting", "crf"}  # in model.json
_LENGTH = 20

Inputs = dict[str, str]  # fingerprints of what a result is made from, by what it is


class Network(NamedTuple):
    """Fingerprints of the weights and of the description of a network; empty if it does not exist."""

    weights: str = ""
    card: str = ""


class Recipe(NamedTuple):
    """How a stage makes its results: the number of its algorithm, and the settings that matter to it."""

    algorithm: int
    settings: dict[str, Any]


def recipe(stage: str, config: str) -> Recipe:
    """Return the recipe of a stage from its settings (JSON)."""
    ignored = _WITHOUT_EFFECT.get(stage, set())
    settings = {name: value for name, value in json.loads(config).items() if name not in ignored}
    if stage in _OF_PIXELS:
        settings = _without_sizes(settings)
    return Recipe((ALGORITHMS | NETWORK_ALGORITHMS)[stage], settings)


def plan_of_pixels(made: str, made_by: Recipe, inputs: Inputs) -> str:
    """Return the fingerprint of what `predict` takes from a plan: pixels, which need no size unless they are resampled.

    Parameters
    ----------
    made, made_by, inputs : str, Recipe, Inputs
        Fingerprint, recipe and inputs of the stage `tile`.
    """
    if not _is_as_in_file(made_by.settings):
        return made
    kept = {name: value for name, value in inputs.items() if name != PIXEL_SIZE}
    return identity_of([made_by.algorithm, _without_sizes(made_by.settings), kept])[:_LENGTH]


def _is_as_in_file(settings: Mapping[str, Any]) -> bool:
    return settings["image"]["pixel_size_um"] is None


def _without_sizes(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without the pixel sizes that change no pixel."""
    if not _is_as_in_file(settings):
        return settings
    return settings | {"image": {name: value for name, value in settings["image"].items() if name not in _SIZES}}


def fingerprint(stage: str, config: str, inputs: Inputs) -> str:
    """Return the fingerprint of a result.

    Parameters
    ----------
    config : str
        The settings of the stage, JSON.
    inputs : Inputs
        Fingerprints of what it is made from.
    """
    return identity_of([_identity(stage, config), inputs])[:_LENGTH]


@cache
def _identity(stage: str, config: str) -> str:
    """Return the fingerprint of all that is the same for all samples; it is asked for many thousand times."""
    return identity_of([stage, *recipe(stage, config)])


def inputs_of(stage: str, sample: Sample, *, before: str, plan: str, network: Network) -> Inputs:
    """Return the inputs of one stage of a sample.

    Parameters
    ----------
    before : str
        Fingerprint of the stage before, of `tile` :func:`plan_of_pixels`; empty for the first.
    plan : str
        Fingerprint of `tile`; its pixel size is in the mask.
    network : Network
        Used by the first two stages.
    """
    regions = {REGIONS: sample.outlines} if sample.regions else {}
    if stage == "tile":
        made_from = {"slide": sample.file, PIXEL_SIZE: str(sample.pixel_size_um), "network": network.card[:_LENGTH]}
        return made_from | ({INSIDE: sample.outlines} if sample.is_cut else {})
    if stage == "predict":
        return {"before": before, "network": f"{network.weights[:_LENGTH]} {network.card[:_LENGTH]}"}
    if stage == "stitch":
        return {"before": before, "plan": plan}
    return {"before": before} | ({"reference": sample.truth} if stage == "evaluate" else regions)


def network_fingerprint(weights: Path) -> Network:
    """Return the SHA-256 of a network file, and the fingerprint of what ``model.json`` beside it says of the network.

    How it was trained is not part of it: the same network may be the result of two trainings that took other times.
    """
    card = weights.with_name("model.json")
    return Network(sha256(weights) if weights.is_file() else "", _description(card) if card.is_file() else "")


def _description(card: Path) -> str:
    try:
        content = read_json(card)
    except SlidemillError:
        return sha256(card)
    return identity_of({name: value for name, value in content.items() if name not in _OF_TRAINING})
