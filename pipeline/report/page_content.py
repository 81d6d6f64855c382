"""What the review page shows: figures, tables and pictures, from the results of all samples."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from numpy.typing import NDArray

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.report import figures
from pipeline.report.columns import columns
from pipeline.report.folds import folds_columns
from pipeline.report.outcome import Outcome
from pipeline.report.page.page_types import Column, Entry, Figure, Layers, Page, Table
from pipeline.report.pictures import layers_of, picture_shape, shrink, side_px
from pipeline.settings.schema import Settings
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import class_map
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import read_plan

log = logging.getLogger(__name__)

_LINKS = {"mask": "mask", "metrics": "metrics", "objects_table": "objects", "annotations": "QuPath", "log": "log"}
_TEXTS = {"model", "other", "measure", "class", "architecture", "tiling", "paper"}
_COUNTS = {"rank", "samples", "groups", "failed", "parameters", "gflops_per_mpx", "stride_px", "context_px"}


def draw_figures(table: pd.DataFrame, summary: pd.DataFrame, settings: Settings) -> dict[str, Figure]:
    """Return the figures by the name of their file; the histories of trainings are read from the current folder."""
    trained = {name: Path(paths.HISTORY.format(model=name)) for name in settings.trainings}
    histories = {name: pd.read_csv(path) for name, path in trained.items() if path.is_file()}
    return {
        "learning": Figure(
            title="Learning curves",
            caption="Mean Dice on the images held back from training. The network of the highest point is kept; of a "
            "fold, the last one.",
            svg=figures.learning_curves(histories),
        ),
        "dice": Figure(
            title="Dice by class",
            caption="A dot per sample, a diamond at the median, a line from the first to the third quartile.",
            svg=figures.dice_by_class(table, settings.classes),
        ),
        "models": Figure(
            title="Models",
            caption="Mean over samples of the mean Dice, with its 95 % bootstrap interval over groups.",
            svg=figures.models_with_intervals(summary),
        ),
        "confusion": Figure(
            title="Confusion",
            caption="How the pixels of each true class were labelled, over all samples; each row adds up to 100 %.",
            svg=figures.confusion(table, settings.classes),
        ),
    }


def review_page(
    found: list[Outcome],
    table: pd.DataFrame,
    tables: list[Table],
    drawn: list[Figure],
    settings: Settings,
    origin: dict[str, Any],
) -> Page:
    """Return the page of all samples; ``table`` has a row for each of ``found``, in the same order."""
    side = side_px(len(found))
    entries = [
        Entry(row=row, links=_links(row), layers=_layers(outcome, settings, side))
        for outcome, row in zip(found, _rows(table), strict=True)
    ]
    return Page(
        columns=columns(settings.classes),
        entries=entries,
        classes=settings.classes,
        tables=tables,
        figures=drawn,
        provenance={name: value for name, value in origin.items() if name != "samples"},
    )


def ranking_table(ranking: pd.DataFrame) -> Table:
    """Return the table of all networks."""
    return _table(
        "Models",
        "Scores are means over the samples that all models with scores were evaluated on; sd, min and max are their "
        "spread. Exact: tiled prediction equals one pass over the whole slide. Blended: the model uses its whole "
        "window, so overlapping windows are averaged; tile_mismatch is the share of the pixels in two windows "
        "that they label differently.",
        ranking,
        digits=3,
    )


def folds_tables(folds: pd.DataFrame, classes: list[str]) -> list[Table]:
    """Return the table of the cross-validation, or none."""
    caption = (
        "Each training image was measured by the one network that was trained without it: means over the images of a "
        "fold, then mean, sample standard deviation and range over the folds. The model itself averages these networks "
        "and can be better than each."
    )
    table = Table(title="Cross-validation", caption=caption, columns=folds_columns(classes), rows=_rows(folds))
    return [table] if table.rows else []


def cohort_tables(summary: pd.DataFrame, pairs: pd.DataFrame) -> list[Table]:
    """Return the tables of means and of models in pairs, without those that are empty."""
    means = "Mean and median over samples, and the 95 % bootstrap interval of the mean over groups of the sample sheet."
    tests = "Median difference on the samples that both have a score for, and Wilcoxon's signed-rank test over groups."
    tables = [_table("Cohort", means, summary, digits=4), _table("Models in pairs", tests, pairs, digits=4)]
    return [table for table in tables if table.rows]


def _table(title: str, caption: str, content: pd.DataFrame, *, digits: int) -> Table:
    decimals = dict.fromkeys(_TEXTS) | dict.fromkeys(_COUNTS, 0)
    named = [Column(name=str(name), digits=decimals.get(str(name), digits)) for name in content]
    return Table(title=title, caption=caption, columns=named, rows=_rows(content))


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table; None where a cell is empty."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _links(row: dict[Any, Any]) -> dict[str, str]:
    return {label: quote(f"../{row[name]}") for name, label in _LINKS.items() if row[name]}


def _layers(outcome: Outcome, settings: Settings, side: int) -> Layers | None:
    """Return the pictures of a sample, or None where there is nothing to show."""
    if outcome.mask is None:
        return None
    memory_mb = settings.tiling.memory_mb
    try:
        plan = read_plan(Path(paths.PLAN.format(model=outcome.model, sample=outcome.sample))).slide
        view = plan.view if plan else None  # it has the pixel size of the sample sheet too
        with (
            open_slide(outcome.slide, memory_mb=memory_mb, view=view) as slide,
            open_slide(outcome.mask, memory_mb=memory_mb) as mask,
        ):
            truth = _truth(outcome, picture_shape(slide.shape, side), settings)
            return layers_of(slide, mask, truth, side_px=side, num_classes=len(settings.classes))
    except (SlidemillError, ValueError) as error:
        log.warning("no picture of %s: %s", outcome.sample, error)
        return None


def _truth(outcome: Outcome, shape: tuple[int, int], settings: Settings) -> NDArray[Any] | None:
    if outcome.reference is None or outcome.metrics is None:
        return None
    meaning = LabelConfig(classes=settings.classes, kind=settings.training.kind, values=settings.training.values)
    with open_slide(outcome.reference, memory_mb=settings.tiling.memory_mb) as reference:
        return class_map(shrink(reference, shape)[0], meaning, source=outcome.reference)
