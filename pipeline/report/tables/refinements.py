"""Which random field suits each network: what was compared on its held-back images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.base.errors import SlidemillError
from pipeline.networks.model_card import card_path, read_card
from pipeline.project.stage_settings import masks_of, network_file
from pipeline.settings.crf import CrfConfig
from pipeline.settings.schema import Settings


def refinements_table(config: Settings) -> pd.DataFrame:
    """Return a row for each network and field, in the order they were compared; those without a table are left out.

    Returns
    -------
    DataFrame
        ``model``, ``settings`` (those of ``masks.crf`` that are not the default, or ``none``),
        ``foreground_dice``, and ``used``: whether the masks of this run are made so.
    """
    rows = []
    for model in config.networks:
        weights = Path(network_file(config, model))
        try:
            table = read_card(card_path(weights)).crf or []
        except SlidemillError:
            continue
        used = masks_of(config.masks, weights).crf
        for one in table:
            stated = None if one.settings is None else CrfConfig.model_validate(one.settings)
            rows.append(
                {
                    "model": model,
                    "settings": ", ".join(f"{name} {value:g}" for name, value in (one.settings or {}).items())
                    or "none",
                    "foreground_dice": one.foreground_dice,
                    "used": "yes" if stated == used else "",
                }
            )
    return pd.DataFrame(rows, columns=["model", "settings", "foreground_dice", "used"])
