"""The table of the cross-validation: scores of each fold on its held-back images, and their spread."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from pipeline.base.paths import VALIDATION
from pipeline.project.jobs.ledger import has_failed
from pipeline.report.columns import amounts, columns
from pipeline.report.page.page_types import Column
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)

_SPREAD = ("mean", "std", "min", "max")
_COUNTS = ("images", "groups")
_NO_SCORES = {"median_area_um2", "uncertain", "tile_mismatch", "tolerance", "calibration_error"}


def folds_table(settings: Settings) -> pd.DataFrame:
    """Return a row per fold of each model, then the mean, standard deviation, minimum and maximum over its folds.

    The value of a fold is the mean over its images that have one. The files of ``validate`` are read from the current
    folder; a model with a missing fold is left out, since its mean would be over other images.

    Returns
    -------
    DataFrame
        ``model``, ``fold`` (from 1, then mean, sd, min, max), ``images``, ``groups``, and all metrics but counts.
    """
    measures = [column.name for column in _measures(settings.classes)]
    rows = []
    for model in settings.models:
        paths = {name: Path(VALIDATION.format(model=name)) for name in settings.folds_of(model)}
        # The file of a fold that failed is of an older network
        if missing := [name for name, path in paths.items() if not path.is_file() or has_failed("validate", name)]:
            log.warning("%s is left out of the cross-validation: %s was not validated", model, missing[0])
        elif paths:
            folds = [pd.read_csv(path, dtype={"sample": str, "group": str}) for path in paths.values()]
            rows.append(_rows(model, folds, measures))
    table = pd.concat(rows) if rows else pd.DataFrame()
    kinds = dict.fromkeys(_COUNTS, "Int64")
    return table.reindex(columns=["model", "fold", *_COUNTS, *measures]).reset_index(drop=True).astype(kinds)


def folds_columns(classes: list[str]) -> list[Column]:
    """Return the columns of :func:`folds_table` for the report page."""
    return [
        Column(name="model"),
        Column(name="fold", about="Number of the fold, or the statistic over all folds."),
        Column(name="images", about="Images that were held back.", digits=0),
        Column(name="groups", about="Groups of these images.", digits=0),
        *_measures(classes),
    ]


def _measures(classes: list[str]) -> list[Column]:
    """Return the metrics that can be averaged over images: all but counts and amounts."""
    left_out = _NO_SCORES | {column.name for column in amounts(classes)}
    return [column for column in columns(classes) if column.digits and column.name not in left_out]


def _rows(model: str, folds: list[pd.DataFrame], measures: list[str]) -> pd.DataFrame:
    """Return the rows of one model."""
    means = pd.DataFrame([fold.reindex(columns=measures).mean() for fold in folds])
    counts = pd.DataFrame([{"images": len(fold), "groups": fold["group"].nunique()} for fold in folds])
    by_fold = pd.concat([counts, means], axis=1).assign(fold=[str(number) for number in range(1, len(folds) + 1)])
    spread = means.agg(list(_SPREAD)).reset_index(names="fold").replace({"fold": {"std": "sd"}})
    spread.loc[spread["fold"] == "mean", list(_COUNTS)] = counts.sum().tolist()
    return pd.concat([by_fold, spread]).assign(model=model)
