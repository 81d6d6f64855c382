"""The ranking of the networks of a project: foreground Dice and its spread, training time, speed, tile mismatch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.base.errors import SlidemillError
from pipeline.base.paths import HISTORY
from pipeline.metrics.names import HEADLINE
from pipeline.networks.model_card import card_path, read_card
from pipeline.project.stage_settings import network_file
from pipeline.report.outcome import Outcome
from pipeline.report.tables.cohort import DECIMALS
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)

_PARTS = ["network", "reading", "writing"]
_COSTS = ["train_minutes", "predict_mpx_per_s", *(f"{part}_share" for part in _PARTS), "tiling", "tile_mismatch"]
_SIZES = ["parameters", "gflops_per_mpx", "stride_px", "context_px", "paper"]
_COUNTS = ["samples", "failed", "parameters", "stride_px", "context_px"]


def rank_models(table: pd.DataFrame, settings: Settings, found: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row per network, by falling foreground Dice; docs/contracts.md describes the columns.

    Scores are means over the samples that every network with scores was evaluated on, so that a network does not rank
    higher for failing on a difficult slide. Unknown values are empty; networks without scores come last, unranked.

    Parameters
    ----------
    table : DataFrame
        A row per sample and network: sample, model, status, foreground_dice, dice_*, jaccard_mean.
    settings : Settings
        The whole configuration; histories and cards are read from the current folder.
    found : sequence of Outcome
        All samples, for the speed of their prediction.
    """
    shared = shared_samples(table)
    rows = []
    for name in settings.networks:
        scores = _scores(table[table["model"] == name], shared, settings.classes)
        rows.append({"model": name} | scores | _costs(name, found, settings) | _card(name, settings))
    columns = ["model", "architecture", *_score_columns(settings.classes), *_COSTS, *_SIZES]
    ranking = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_COUNTS, "Int64"))
    ranks = ranking[HEADLINE].round(DECIMALS).rank(ascending=False, method="min").astype("Int64")
    ranking.insert(0, "rank", ranks)
    ranking = ranking.sort_values("rank", na_position="last", kind="stable")
    return ranking.reset_index(drop=True)


def shared_samples(table: pd.DataFrame) -> set[str]:
    """Return the samples that have a score under every network that has any score."""
    scored = table[table[HEADLINE].notna()]
    samples = [set(part["sample"]) for _, part in scored.groupby("model")]
    return set.intersection(*samples) if samples else set()


def _score_columns(classes: list[str]) -> list[str]:
    # Neither the headline nor its spread begins with "dice_", since a class may be named "foreground" or "min".
    spread = [f"{statistic}_{HEADLINE}" for statistic in ("sd", "min", "max")]
    means = ["dice_mean", *(f"dice_{label}" for label in classes), "jaccard_mean"]
    return ["samples", "failed", HEADLINE, *spread, *means]


def _scores(rows: pd.DataFrame, shared: set[str], classes: list[str]) -> dict[str, Any]:
    """Return means over the shared samples, and the spread of the headline (sample standard deviation, range)."""
    compared = rows[rows["sample"].isin(list(shared)) & rows[HEADLINE].notna()]
    score = compared[HEADLINE]
    failed = int((rows["status"] == "failed").sum())
    means = compared[["dice_mean", *(f"dice_{label}" for label in classes), "jaccard_mean"]].mean()
    values = [len(compared), failed, score.mean(), score.std(), score.min(), score.max(), *means]
    return dict(zip(_score_columns(classes), values, strict=True))


def _costs(name: str, found: Sequence[Outcome], settings: Settings) -> dict[str, Any]:
    """Return training time, speed and tile mismatch of a network in this project."""
    trainings = settings.folds_of(name) or [name] * (name in settings.trainings)
    histories = [Path(HISTORY.format(model=training)) for training in trainings]
    trained = bool(histories) and all(history.is_file() for history in histories)
    predicted = [outcome.found["predict"] for outcome in found if outcome.model == name and "predict" in outcome.found]
    pixels, seconds, differing, compared = (
        sum(measured[key] for measured in predicted) for key in ("pixels", "wall_s", "differing_px", "compared_px")
    )
    shares = {part: sum(measured[f"{part}_s"] for measured in predicted) for part in _PARTS}
    return {
        "train_minutes": sum(pd.read_csv(path)["elapsed_s"].iloc[-1] for path in histories) / 60 if trained else None,
        "predict_mpx_per_s": pixels / 1e6 / seconds if seconds else None,
        **{f"{part}_share": share / seconds if seconds else None for part, share in shares.items()},
        "tile_mismatch": differing / compared if compared else None,
    }


def _card(name: str, settings: Settings) -> dict[str, Any]:
    """Return architecture, size and geometry from the card of a network; nothing if it is missing or damaged."""
    path = card_path(Path(network_file(settings, name)))
    if not path.is_file():
        return {}
    try:
        card = read_card(path)
    except SlidemillError as error:
        log.warning("left out of the comparison: %s", error)
        return {}
    return {
        "architecture": card.architecture,
        "tiling": card.geometry.tiling,
        "parameters": card.parameters,
        "gflops_per_mpx": card.gflops_per_mpx,
        "stride_px": card.geometry.stride_px,
        "context_px": card.geometry.context_px,
        "paper": card.paper,
    }
