"""Why a result is made again, in a few words: which setting, file or network is another than when it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.project.jobs.fingerprints import Inputs, Recipe, recipe
from pipeline.project.jobs.ledger import Entry, network_ledger_path, read_ledger, read_recipe
from pipeline.project.jobs.network_job import HELD_BACK

_MOST = 3  # differences that are named
# Keys of the configuration that a stage has under other names. The line names the model.
_SETTINGS = {
    "labels.classes": "classes",
    "labels.": "training.",
    "split.": "training.",
    "allow_empty": "training.allow_empty",
    "compares_crf": "masks.crf: auto",
    "model.": "",
    "tile.tile_px": "tiling.tile_px",
    "tile.skip_glass": "tiling.skip_glass",
    "tile.": "",
    "tile_px": "tiling.tile_px",
    "skip_glass": "tiling.skip_glass",
    "precision": "prediction.precision",
    "probabilities": "prediction.probabilities",
}


def why_again(
    entry: Entry | None, known: Sequence[Any], wanted: Recipe, inputs: Inputs, *, lacks: Sequence[str] = ()
) -> str:
    """Return why a result is not the one that is wanted; empty if there is none yet.

    Parameters
    ----------
    entry : Entry or None
        What its ledger says of it.
    known : sequence
        The recipe in its ledger, or nothing.
    wanted, inputs : Recipe, Inputs
        Those of now.
    lacks : sequence of str
        What it must have beside its files, and was not kept.
    """
    if entry is None:
        return ""
    if entry.failure:
        return "it failed"
    if not known or known[0] != wanted.algorithm:
        return "made by another version of Slidemill"
    found = [*_other_settings(known[1], wanted.settings), *_other_inputs(entry.inputs, inputs)]
    if found:
        return ", ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more changes" if len(found) > _MOST else "")
    if lacks:
        return f"masks or prediction.probabilities now need {' and '.join(lacks)}, which were not kept"
    return "a file of it is missing or was changed"


def why_network_again(stage: str, model: str, config: str, inputs: Inputs) -> str:
    """Return the same of a job that makes a network, or what its training needs."""
    ledger = network_ledger_path(stage, model)
    return why_again(read_ledger(ledger).get(model), read_recipe(ledger), recipe(stage, config), inputs)


def _other_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = dict(_flat(before)), dict(_flat(now))
    for key in old | new:
        if old.get(key) != new.get(key):
            yield f"{_name(key)} {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}"


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings, each with its path."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _name(key: str) -> str:
    key = key.removeprefix("comparison.").removeprefix("ensemble.")  # of `combine`
    prefix = next((prefix for prefix in _SETTINGS if key.startswith(prefix)), "")
    return _SETTINGS.get(prefix, "") + key.removeprefix(prefix)


def _other_inputs(before: Inputs, now: Inputs) -> Iterator[str]:
    for what in before | now:
        if what == "before":  # another stage says why
            continue
        if what not in before:
            yield f"{what} is new"
        elif what not in now:
            yield f"{what} is no longer used"
        elif before[what] != now[what]:
            yield f"{what} {before[what]} -> {now[what]}" if what == HELD_BACK else f"{what} changed"
