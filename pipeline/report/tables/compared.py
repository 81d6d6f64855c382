"""What was compared on the held-back images of each network: ways to tell objects apart, and random fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.base.errors import SlidemillError
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.project.stage_settings import masks_of, network_file
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import Criterion, MaskConfig, compared_with
from pipeline.settings.schema import Settings

_WITH_SPECKS = {"min_object_px": None}  # unless a way says otherwise


def partings_table(config: Settings) -> pd.DataFrame:
    """Return a row for each network and way, with its best settings and those in use; ``model.json`` has all.

    Returns
    -------
    DataFrame
        ``model``, ``way`` (of ``masks.instances``), ``settings``, ``f1`` (mean over IoU 0.5 to 0.9),
        ``adapted_rand_error``, and ``used``: whether the masks of this run are made so.
    """
    rows = []
    for model, card, masks in _cards(config):
        table, used = compared_with(card.to_dict()["parting"] or [], masks.crf), masks.model_dump()
        best = list(_best_of_ways(table, config.masks.criterion))
        for one in table:
            own = {name: value for name, value in one["settings"].items() if name != "crf"}
            is_used = (_WITH_SPECKS | own).items() <= used.items()
            if one in best or is_used:
                way, *more = own.items()
                settings = ", ".join(f"{name} {value}" for name, value in more)
                rows.append((model, way[1], settings, one["f1"], one["rand"], "yes" if is_used else ""))
    return pd.DataFrame(rows, columns=["model", "way", "settings", "f1", "adapted_rand_error", "used"])


def refinements_table(config: Settings) -> pd.DataFrame:
    """Return a row for each network and field, in the order they were compared; those without a table are left out.

    Returns
    -------
    DataFrame
        ``model``, ``settings`` (those of ``masks.crf`` that are not the default, or ``none``),
        ``foreground_dice``, and ``used``: whether the masks of this run are made so.
    """
    rows = []
    for model, card, masks in _cards(config):
        for one in card.crf or []:
            stated = None if one.settings is None else CrfConfig.model_validate(one.settings)
            settings = ", ".join(f"{name} {value:g}" for name, value in (one.settings or {}).items())
            rows.append((model, settings or "none", one.foreground_dice, "yes" if stated == masks.crf else ""))
    return pd.DataFrame(rows, columns=["model", "settings", "foreground_dice", "used"])


def _cards(config: Settings) -> Iterator[tuple[str, ModelCard, MaskConfig]]:
    """Yield each network whose card can be read, with the settings of its masks."""
    for model in config.networks:
        weights = Path(network_file(config, model))
        try:
            card = read_card(card_path(weights))
        except SlidemillError:
            continue
        yield model, card, masks_of(config.masks, weights)


def _best_of_ways(table: list[Mapping[str, Any]], criterion: Criterion) -> Iterator[Mapping[str, Any]]:
    for way in dict.fromkeys(one["settings"]["instances"] for one in table):
        of_way = [one for one in table if one["settings"]["instances"] == way]
        if criterion == "rand":
            yield min(of_way, key=lambda one: 1.0 if one["rand"] is None else float(one["rand"]))
        else:
            yield max(of_way, key=lambda one: float(one["f1"] or 0.0))
