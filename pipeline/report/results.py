"""The table of all samples: state, metrics and quality flags of each."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.networks.model_card import card_path, read_card
from pipeline.prediction.measurements import read_speed
from pipeline.project.stage_settings import network_file
from pipeline.report.columns import columns
from pipeline.report.outcome import Outcome
from pipeline.report.quality_flags import COHORT, FEWEST, flags_of
from pipeline.settings.schema import Settings
from pipeline.tiling.plan import read_plan

Row = dict[str, Any]

_AREA = "median_area_px"  # can end in .5


def results_table(found: list[Outcome], config: Settings, groups: dict[str, str]) -> pd.DataFrame:
    """Return a row per sample and network in the order of ``found``, with the group of each sample.

    A cell without a value is NaN or None.
    """
    rows = [_row(outcome, groups) for outcome in found]
    for model in config.networks:
        _flag([row for row in rows if row["model"] == model], _training_appearances(network_file(config, model)))
    names = columns(config.classes)
    table = pd.DataFrame(rows, columns=[column.name for column in names])
    return table.astype({column.name: "Int64" for column in names if column.digits == 0 and column.name != _AREA})


def _row(outcome: Outcome, groups: dict[str, str]) -> Row:
    row: Row = {}
    if outcome.metrics:
        measured = pd.read_csv(outcome.metrics, dtype={"sample": str, "model": str}).iloc[0]
        row = {str(name): value for name, value in measured.items()}
    row |= {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    row |= {"status": outcome.status, "group": groups.get(outcome.sample), "flags": ""}
    return row | (_measured(outcome) if outcome.status == "done" else {})


def _measured(outcome: Outcome) -> Row:
    """Return what is measured on a mask without a reference."""
    names = {"sample": outcome.sample, "model": outcome.model, "batch": outcome.batch}
    try:
        speed = read_speed(Path(paths.SPEED.format(**names)))
    except SlidemillError:
        uncertain = mismatch = np.nan  # written by an earlier version
    else:
        uncertain = speed.uncertain.get(outcome.sample, np.nan)
        mismatch = speed.mismatch.get(outcome.sample, np.nan)
    table = outcome.objects_table
    areas = pd.read_csv(table, usecols=["area_px"])["area_px"] if table else pd.Series(dtype=float)
    return {
        "objects": len(areas),
        "median_area_px": float(areas.median()) if len(areas) else np.nan,
        "uncertain": uncertain,
        "tile_mismatch": mismatch,
    }


def _flag(rows: list[Row], known: list[dict[str, float]]) -> None:
    """Fill in the flags of the finished samples of one network."""
    done = [row for row in rows if row["status"] == "done"]
    appearances = [_appearance(row["sample"]) for row in done]
    seen = [_numbers(row) for row in done]
    cohort = {name: [numbers[name] for numbers in seen] for name in COHORT}
    if len(known) < FEWEST:  # too few training images are known: compare the slides with each other
        known = [appearance for appearance in appearances if appearance]
    for row, appearance, numbers in zip(done, appearances, seen, strict=True):
        others = [other for other in known if other is not appearance]
        row["flags"] = "; ".join(flags_of(numbers, cohort, appearance, others))  # type: ignore[arg-type]


def _numbers(row: Row) -> dict[str, float]:
    plan = read_plan(Path(paths.PLAN.format(sample=row["sample"], model=row["model"]))).slide
    pixels = float(np.prod(plan.grid.shape)) if plan else np.nan
    return {name: row[name] for name in ("median_area_px", "uncertain", "tile_mismatch")} | {
        "objects_per_mpx": 1e6 * row["objects"] / pixels
    }


def _appearance(sample: str) -> dict[str, float]:
    path = Path(paths.APPEARANCE.format(sample=sample))
    return read_json(path)["appearance"] if path.is_file() else {}


def _training_appearances(network: str) -> list[dict[str, float]]:
    """Return the appearance of the training images of a network; empty if its card cannot be read."""
    try:
        return read_card(card_path(Path(network))).appearance
    except SlidemillError:
        return []
