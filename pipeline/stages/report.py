"""Gather every sample, also the failed ones, into one table and one page to review them on."""

from __future__ import annotations

import base64
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd

from pipeline import files
from pipeline.comparison import compare
from pipeline.config import LabelConfig, Settings
from pipeline.errors import SlideError
from pipeline.files import replacing, sha256, write_json, write_text
from pipeline.labels import class_map
from pipeline.outcome import Outcome, outcomes
from pipeline.overlay import overlay, picture_shape, shrink, to_png
from pipeline.slides import open_slide

log = logging.getLogger(__name__)

_COMPUTING = (
    "torch",
    "monai",
    "lightning",
    "numpy",
    "scipy",
    "scikit-image",
    "tifffile",
    "imagecodecs",
    "zarr",
    "dask",
)
_LEADING = ["sample", "model", "status", "stage", "error"]
_FILES = ["slide", "reference", "mask", "metrics", "log"]


def run(*, output: Path, comparison: Path, page: Path, provenance: Path | None = None, config: Settings) -> None:
    """Write ``output`` (CSV, a row per sample and model), ``comparison`` (CSV, a row per model, best first) and
    ``page`` (HTML, one file, no network).

    Reads the folders that ``config`` names, ``results/`` and ``logs/`` below the current folder. The workflow passes
    ``provenance`` (JSON) when it has brought every sample up to date; without it, a result that is older than what it
    was made from counts as failed.
    """
    found = outcomes(config, check_age=provenance is None)
    origin = collect_provenance(found, config)
    if provenance is not None:
        write_json(provenance, origin)
    table = _table(found, config.classes)
    ranking = compare(table, config)
    for path, content in ((output, table), (comparison, ranking)):
        with replacing(path) as temporary:
            content.to_csv(temporary, index=False)
    write_text(page, _render(found, table, ranking, config, origin))
    failed = [outcome for outcome in found if outcome.status == "failed"]
    log.info("%d samples, %d failed; %s, %s", len(found), len(failed), output, page)
    for outcome in failed:
        log.info("failed: %s (%s) at %s: %s", outcome.sample, outcome.model, outcome.stage, outcome.error)


def collect_provenance(found: list[Outcome], config: Settings) -> dict[str, Any]:
    """Return settings, versions of what computes, and the sha256 of every mask."""
    versions = {package: version(package) for package in _COMPUTING}
    masks = {str(outcome.mask): sha256(outcome.mask) for outcome in found if outcome.mask}
    return files.provenance("report", config, **masks) | {"versions": versions}


def _table(found: list[Outcome], classes: list[str]) -> pd.DataFrame:
    measures = [f"{name}_{part}" for name in ("dice", "jaccard") for part in ("mean", *classes)]
    counts = ["pixels", *(f"pixels_{side}_{label}" for side in ("truth", "predicted") for label in classes)]
    rows = [_row(outcome) for outcome in found]
    table = pd.DataFrame(
        rows, columns=[*_LEADING, *measures, *counts, *_FILES, "version", "mask_sha256", "reference_sha256"]
    )
    return table.astype(dict.fromkeys(counts, "Int64"))


def _row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if outcome.metrics:
        measured = pd.read_csv(outcome.metrics, dtype={"sample": str, "model": str}).iloc[0]
        row = {str(name): value for name, value in measured.items()}
    return row | {name: getattr(outcome, name) for name in (*_LEADING, *_FILES)}


def _render(
    found: list[Outcome], table: pd.DataFrame, ranking: pd.DataFrame, config: Settings, origin: dict[str, Any]
) -> str:
    """Return the page: failed samples first, then from the lowest mean Dice to the highest."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("pipeline", ""), autoescape=True, trim_blocks=True)
    rows = _records(table)
    entries = [_Entry(outcome, row, _picture(outcome, config)) for outcome, row in zip(found, rows, strict=True)]
    entries.sort(key=lambda entry: (entry.outcome.status == "done", entry.row["dice_mean"] or 0.0))
    return environment.get_template("report.html.j2").render(
        samples=entries,
        failed=[entry for entry in entries if entry.outcome.status == "failed"],
        classes=config.classes,
        ranking=_records(ranking),
        provenance=origin,
    )


class _Entry(NamedTuple):
    """One sample under one model on the page; ``picture`` is a data URL."""

    outcome: Outcome
    row: dict[Any, Any]
    picture: str | None


def _picture(outcome: Outcome, config: Settings) -> str | None:
    """Return the overlay of a sample as a data URL, or None where there is nothing to show."""
    if outcome.mask is None:
        return None
    memory_mb = config.tiling.memory_mb
    try:
        with (
            open_slide(outcome.slide, memory_mb=memory_mb) as slide,
            open_slide(outcome.mask, memory_mb=memory_mb) as mask,
        ):
            shape = picture_shape(slide.shape)
            image, predicted = shrink(slide, shape)[config.image.channels], shrink(mask, shape)[0]
        picture = overlay(image, predicted, _truth(outcome, shape, config))
    except SlideError as error:
        log.warning("no picture of %s: %s", outcome.sample, error)
        return None
    return "data:image/png;base64," + base64.b64encode(to_png(picture)).decode("ascii")


def _truth(outcome: Outcome, shape: tuple[int, int], config: Settings) -> np.ndarray[Any, Any] | None:
    if outcome.reference is None or outcome.metrics is None:
        return None
    meaning = LabelConfig(classes=config.classes, kind=config.training.kind, values=config.training.values)
    with open_slide(outcome.reference, memory_mb=config.tiling.memory_mb) as reference:
        return class_map(shrink(reference, shape)[0], meaning, source=outcome.reference)


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table; None where a cell is empty."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
