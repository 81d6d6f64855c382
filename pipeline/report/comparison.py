"""The ranking of the networks of a project: mean score, spread over samples, training time, speed, tile mismatch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from pipeline.base.errors import SlidemillError
from pipeline.base.paths import HISTORY, SPEED
from pipeline.networks.model_card import card_path, read_card
from pipeline.prediction.measurements import read_speed
from pipeline.project.stage_settings import network_file
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)

_COSTS = ["train_minutes", "predict_mpx_per_s", "tiling", "tile_mismatch"]
_SIZES = ["parameters", "gflops_per_mpx", "stride_px", "context_px", "paper"]
_COUNTS = ["samples", "failed", "parameters", "stride_px", "context_px"]

Content = TypeVar("Content")


def rank_models(table: pd.DataFrame, settings: Settings, batches: Collection[str]) -> pd.DataFrame:
    """Return one row per network, by falling mean Dice; docs/contracts.md describes the columns.

    Scores are means over the samples that every network with scores was evaluated on, so that a network does not rank
    higher for failing on a difficult slide. Unknown values are empty; networks without scores come last, unranked.

    Parameters
    ----------
    table : DataFrame
        A row per sample and network: sample, model, status, dice_*, jaccard_mean.
    settings : Settings
        The whole configuration; histories, cards and speeds are read from the current folder.
    batches : collection of str
        Batches of the samples, to find the speeds by.
    """
    shared = shared_samples(table)
    rows = []
    for name in settings.networks:
        scores = _scores(table[table["model"] == name], shared, settings.classes)
        rows.append({"model": name} | scores | _costs(name, batches, settings) | _card(name, settings))
    columns = ["model", "architecture", *_score_columns(settings.classes), *_COSTS, *_SIZES]
    ranking = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_COUNTS, "Int64"))
    ranking = ranking.sort_values("dice_mean", ascending=False, na_position="last", kind="stable")
    ranking.insert(0, "rank", ranking["dice_mean"].rank(ascending=False, method="min").astype("Int64"))
    return ranking.reset_index(drop=True)


def shared_samples(table: pd.DataFrame) -> set[str]:
    """Return the samples that have a score under every network that has any score."""
    scored = table[table["dice_mean"].notna()]
    samples = [set(part["sample"]) for _, part in scored.groupby("model")]
    return set.intersection(*samples) if samples else set()


def _score_columns(classes: list[str]) -> list[str]:
    # The spread does not begin with "dice_", since a class may be named "min".
    spread = ["sd_dice_mean", "min_dice_mean", "max_dice_mean"]
    return ["samples", "failed", "dice_mean", *spread, *(f"dice_{label}" for label in classes), "jaccard_mean"]


def _scores(rows: pd.DataFrame, shared: set[str], classes: list[str]) -> dict[str, Any]:
    """Return means over the shared samples, and the spread of the mean Dice (sample standard deviation, range)."""
    compared = rows[rows["sample"].isin(list(shared)) & rows["dice_mean"].notna()]
    score = compared["dice_mean"]
    failed = int((rows["status"] == "failed").sum())
    class_means = [compared[f"dice_{label}"].mean() for label in classes]
    spread = [score.std(), score.min(), score.max()]
    values = [len(compared), failed, score.mean(), *spread, *class_means, compared["jaccard_mean"].mean()]
    return dict(zip(_score_columns(classes), values, strict=True))


def _costs(name: str, batches: Collection[str], settings: Settings) -> dict[str, Any]:
    """Return training time, speed and tile mismatch of a network in this project."""
    trainings = settings.folds_of(name) or [name] * (name in settings.trainings)
    histories = [Path(HISTORY.format(model=training)) for training in trainings]
    trained = bool(histories) and all(history.is_file() for history in histories)
    found = [_read(read_speed, Path(SPEED.format(model=name, batch=batch))) for batch in batches]
    speeds = [speed for speed in found if speed]
    seconds, compared = sum(speed.wall_s for speed in speeds), sum(speed.compared_px for speed in speeds)
    return {
        "train_minutes": sum(pd.read_csv(path)["elapsed_s"].iloc[-1] for path in histories) / 60 if trained else None,
        "predict_mpx_per_s": sum(speed.pixels for speed in speeds) / 1e6 / seconds if seconds else None,
        "tile_mismatch": sum(speed.differing_px for speed in speeds) / compared if compared else None,
    }


def _card(name: str, settings: Settings) -> dict[str, Any]:
    """Return architecture, size and geometry from the card of a network; nothing without a card."""
    card = _read(read_card, card_path(Path(network_file(settings, name))))
    if card is None:
        return {}
    return {
        "architecture": card.architecture,
        "tiling": "blended" if card.geometry.context_px is None else "exact",
        "parameters": card.parameters,
        "gflops_per_mpx": card.gflops_per_mpx,
        "stride_px": card.geometry.stride_px,
        "context_px": card.geometry.context_px,
        "paper": card.paper,
    }


def _read(read: Callable[[Path], Content], path: Path) -> Content | None:
    """Read a file; None if it is missing or damaged: the report is written all the same."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except SlidemillError as error:
        log.warning("left out of the comparison: %s", error)
        return None
