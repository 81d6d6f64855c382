"""How well objects are told apart with each network, by each way that was compared on held-back images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.base.errors import SlidemillError
from pipeline.networks.model_card import Parting, card_path, read_card
from pipeline.project.stage_settings import masks_of, network_file
from pipeline.settings.masks import Criterion
from pipeline.settings.schema import Settings


def partings_table(config: Settings) -> pd.DataFrame:
    """Return a row for each network and way, with its best settings and those in use; ``model.json`` has all.

    Returns
    -------
    DataFrame
        ``model``, ``way`` (of ``masks.instances``), ``settings``, ``f1`` (mean over IoU 0.5 to 0.9),
        ``adapted_rand_error``, and ``used``: whether the masks of this run are made so.
    """
    rows = []
    for model in config.networks:
        weights = Path(network_file(config, model))
        try:
            table = read_card(card_path(weights)).parting or []
        except SlidemillError:
            continue
        masks = masks_of(config.masks, weights).model_dump()
        best = list(_best_of_ways(table, config.masks.criterion))
        for one in table:
            is_used = one.settings.items() <= masks.items()
            if one in best or is_used:
                way, *more = one.settings.items()
                rows.append(
                    {
                        "model": model,
                        "way": way[1],
                        "settings": ", ".join(f"{name} {value}" for name, value in more),
                        "f1": one.f1,
                        "adapted_rand_error": one.rand,
                        "used": "yes" if is_used else "",
                    }
                )
    return pd.DataFrame(rows, columns=["model", "way", "settings", "f1", "adapted_rand_error", "used"])


def _best_of_ways(table: list[Parting], criterion: Criterion) -> Iterator[Parting]:
    for way in dict.fromkeys(one.settings["instances"] for one in table):
        of_way = [one for one in table if one.settings["instances"] == way]
        if criterion == "rand":
            yield min(of_way, key=lambda one: 1.0 if one.rand is None else one.rand)
        else:
            yield max(of_way, key=lambda one: one.f1 or 0.0)
