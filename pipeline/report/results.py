"""The table of all samples: state, metrics and quality flags of each."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pandas as pd

from pipeline.metrics.names import HEADLINE
from pipeline.report.columns import columns
from pipeline.report.learned import card_of, images_learned
from pipeline.report.outcome import Outcome, pixel_um2
from pipeline.report.quality_flags import LEARNED, against_training, flags_of
from pipeline.settings.schema import Settings

Row = dict[str, Any]

_AREA = "median_area_px"  # can end in .5
_STATE = [field.name for field in fields(Outcome) if field.name != "found"]


def results_table(found: list[Outcome], config: Settings, groups: dict[str, str]) -> pd.DataFrame:
    """Return a row per sample and network in the order of ``found``, with the group of each sample.

    A cell without a value is NaN or None.
    """
    rows = [_row(outcome, groups, config.classes) for outcome in found]
    for model in config.networks:
        chosen = [number for number, one in enumerate(found) if one.model == model and _is_measured(one)]
        card, learned = card_of(config, model), images_learned(config, model)
        known = card.appearance if card else []
        numbers = [_numbers(rows[number], found[number], config.classes[0]) for number in chosen]
        flags = flags_of(numbers, [found[number].found["tile"]["appearance"] for number in chosen], known)
        for number, own in zip(chosen, flags, strict=True):
            is_learned = found[number].found["tile"]["slide_sha256"] in learned
            rows[number]["learned"] = "yes" if is_learned else ""
            doubts = [LEARNED] if is_learned else []
            doubts += against_training(_compared(rows[number], found[number]), card) if card else []
            rows[number]["flags"] = "; ".join(filter(None, [rows[number]["flags"], *doubts, *own]))
    names = columns(config.classes)
    table = pd.DataFrame(rows, columns=[column.name for column in names])
    kinds = {column.name: "Int64" if column.digits == 0 and column.name != _AREA else "float64" for column in names}
    return table.astype({column.name: kinds[column.name] for column in names if column.digits is not None})


def _row(outcome: Outcome, groups: dict[str, str], classes: list[str]) -> Row:
    row = dict(outcome.found["evaluate"]["metrics"]) if outcome.metrics else {}
    row |= {name: getattr(outcome, name) for name in _STATE}
    row |= {"status": outcome.status, "group": groups.get(outcome.sample), "learned": ""}
    row |= {"flags": "; ".join(_warnings(outcome))}
    if _is_measured(outcome):
        row |= _amounts(outcome, classes)
        row |= {name: outcome.found["predict"][name] for name in ("uncertain", "tile_mismatch")}
    return row


def _is_measured(outcome: Outcome) -> bool:
    """Return whether a sample has a mask and its objects: also if its reference failed."""
    return outcome.status != "waiting" and {"tile", "predict", "objects"} <= outcome.found.keys()


def _amounts(outcome: Outcome, classes: list[str]) -> Row:
    """Return what there is of each class in the mask; NaN in µm² without a pixel size."""
    measured, pixels = outcome.found["objects"], outcome.found["tile"]["pixels"]
    um2, median = pixel_um2(outcome), measured["median_area_px"]
    row: Row = {name: measured[name] for name in ("objects", _AREA)}
    row |= {"pixels": pixels, "median_area_um2": math.nan if median is None else median * um2}
    for label, count, own in zip(classes, measured["class_objects"], measured["class_pixels"], strict=True):
        row |= {f"pixels_predicted_{label}": own, f"share_{label}": own / pixels}
        row |= {f"area_um2_{label}": own * um2, f"count_{label}": count}
    return row


def _warnings(outcome: Outcome) -> list[str]:
    """Return what was doubtful about how the slide, its regions and its reference were read."""
    found = [outcome.found.get(stage, {}) for stage in ("tile", "objects", "evaluate")]
    return [warning for of_stage in found for warning in of_stage.get("warnings", [])]


def _numbers(row: Row, outcome: Outcome, background: str) -> dict[str, float]:
    """Return what is compared with other samples, in µm if the pixel size is known; NaN where a number is unknown."""
    um2 = pixel_um2(outcome)
    if math.isnan(um2):
        compared = {_AREA: row[_AREA], "objects_per_mpx": 1e6 * row["objects"] / row["pixels"]}
    else:
        density = 1e6 * row["objects"] / (row["pixels"] * um2)
        compared = {"median_area_um2": row["median_area_um2"], "objects_per_mm2": density}
    compared |= {name: row[name] for name in ("uncertain", "tile_mismatch")}
    compared |= _truth_numbers(row, background)
    return {name: math.nan if number is None else float(number) for name, number in compared.items()}


def _truth_numbers(row: Row, background: str) -> Row:
    """Return what is compared of a reference; nothing without one."""
    background_px = row.get(f"pixels_truth_{background}")
    if background_px is None:
        return {}
    share, per_mpx = 1 - background_px / row["pixels"], 1e6 * row["objects_truth"] / row["pixels"]
    return {
        "truth_share": share,
        "truth_per_mpx": per_mpx,
        "agreement": row["pixel_accuracy"],
        HEADLINE: row.get(HEADLINE, math.nan),
    }


def _compared(row: Row, outcome: Outcome) -> dict[str, float]:
    """Return what is compared with the annotated objects, in pixels as the network saw them in training."""
    measured = outcome.found["objects"]
    numbers = {
        "objects": row["objects"],
        "median_area_px": measured["median_area_px"],
        "per_mpx": 1e6 * row["objects"] / row["pixels"],
        "spread": measured["area_spread"],
    }
    return {name: math.nan if number is None else float(number) for name, number in numbers.items()}
