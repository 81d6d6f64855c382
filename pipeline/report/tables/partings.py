"""How well objects are told apart with each network, by each way that was compared on held-back images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.base.errors import SlidemillError
from pipeline.networks.model_card import card_path, read_card
from pipeline.project.stage_settings import masks_of, network_file
from pipeline.settings.schema import Settings


def partings_table(config: Settings) -> pd.DataFrame:
    """Return a row for each network and way, in the order they were compared; those without a table are left out.

    Returns
    -------
    DataFrame
        ``model``, ``way`` (of ``masks.instances``, and its setting), ``f1`` (mean over IoU 0.5 to 0.9),
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
        for one in table:
            name, *more = one.settings.values()
            rows.append(
                {
                    "model": model,
                    "way": " ".join(map(str, [name, *more])),
                    "f1": one.f1,
                    "adapted_rand_error": one.rand,
                    "used": "yes" if one.settings.items() <= masks.items() else "",
                }
            )
    return pd.DataFrame(rows, columns=["model", "way", "f1", "adapted_rand_error", "used"])
