"""Gather every sample, also the failed ones, into tables, figures and one page to review them on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, spreadsheet_text, write_json, write_text
from pipeline.project.sample_sheet import read_groups
from pipeline.report import figures
from pipeline.report.cohort import pair, summarize
from pipeline.report.columns import columns
from pipeline.report.comparison import compare
from pipeline.report.folds import folds_columns, folds_table
from pipeline.report.outcome import Outcome, outcomes
from pipeline.report.page import Column, Entry, Figure, Layers, Page, Table, render
from pipeline.report.pictures import layers_of, picture_shape, shrink, side_px
from pipeline.report.proofs import proofs_tables
from pipeline.report.provenance import collect_origin
from pipeline.report.results import results_table
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.stages import LabelConfig
from pipeline.slides.labels import class_map
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import read_plan

log = logging.getLogger(__name__)

_LINKS = {"mask": "mask", "metrics": "metrics", "objects_table": "objects", "annotations": "QuPath", "log": "log"}


def run(
    *,
    output: Path,
    provenance: Path | None = None,
    config: Settings,
) -> None:
    """Write tables, figures and the page.

    The folder ``output`` gets metrics.csv (a row per sample and model), comparison.csv (a row per model, best first),
    cohort.csv (means with intervals), paired.csv (tests of every two models), folds.csv (the cross-validation),
    figures/*.svg, and report.html, which shows all of it in one file. Reads the folders that ``config`` names,
    ``results/`` and ``logs/`` below the current folder. The workflow passes ``provenance`` (JSON) when it has brought
    every sample up to date; without it, a result that is older than what it was made from counts as failed.

    Raises
    ------
    SlidemillError
        If ``provenance`` is asked for and a sample failed all the same: the drop folder refused it.
    """
    found = outcomes(config, check_age=provenance is None)
    failed = [outcome for outcome in found if outcome.status == "failed"]
    if provenance is not None and failed:
        raise SlidemillError(f"{len(failed)} of {len(found)} samples failed; the first: {failed[0].error}")
    origin = collect_origin(found, config)
    if provenance is not None:
        write_json(provenance, origin)
    groups = read_groups(Path(config.samples), {outcome.sample for outcome in found})
    table = results_table(found, config, groups)
    ranking = compare(table, config, sorted({outcome.batch for outcome in found if outcome.batch}))
    summary, pairs = summarize(table, config.classes, groups), pair(table, groups)
    parts = folds_table(config)
    written = {
        paths.ALL_METRICS: table,
        paths.COMPARISON: ranking,
        paths.COHORT: summary,
        paths.PAIRED: pairs,
        paths.FOLDS: parts,
    }
    for path, content in written.items():
        _write_table(_below(output, path), content)
    drawn = _draw(table, summary, config)
    for name, figure in drawn.items():
        write_text(_below(output, paths.FIGURE.format(figure=name)), figure.svg)
    proofs = proofs_tables(origin["samples"])
    tables = [_ranking_table(ranking), *proofs, *_folds_tables(parts, config), *_cohort_tables(summary, pairs)]
    page = _below(output, paths.PAGE)
    write_text(page, render(_page(found, table, tables, list(drawn.values()), config, origin)))
    flagged = int((table["flags"] != "").sum())
    log.info("%d samples, %d failed, %d flagged; %s", len(found), len(failed), flagged, page)


def _below(output: Path, path: str) -> Path:
    return output / Path(path).relative_to(paths.REPORT)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    safe = table.map(lambda cell: spreadsheet_text(str(cell)) if isinstance(cell, str | Path) else cell)
    with replacing(path) as temporary:
        safe.to_csv(temporary, index=False)


def _draw(table: pd.DataFrame, summary: pd.DataFrame, config: Settings) -> dict[str, Figure]:
    trained = {name: Path(paths.HISTORY.format(model=name)) for name in config.trainings}
    histories = {name: pd.read_csv(path) for name, path in trained.items() if path.is_file()}
    return {
        "learning": Figure(
            title="Learning curves",
            caption="Mean Dice on the images held back from training. The weights of the highest point are kept, of "
            "folds those of the last.",
            svg=figures.learning_curves(histories),
        ),
        "dice": Figure(
            title="Dice by class",
            caption="A dot per sample, a diamond at the median, a line from the first to the third quartile.",
            svg=figures.dice_by_class(table, config.classes),
        ),
        "models": Figure(
            title="Models",
            caption="Mean over samples of the mean Dice, with its 95 % bootstrap interval over groups.",
            svg=figures.models_with_intervals(summary),
        ),
        "confusion": Figure(
            title="Confusion",
            caption="Where the pixels of each true class went, all samples together; each row adds up to 100 %.",
            svg=figures.confusion(table, config.classes),
        ),
    }


def _page(
    found: list[Outcome],
    table: pd.DataFrame,
    tables: list[Table],
    drawn: list[Figure],
    config: Settings,
    origin: dict[str, Any],
) -> Page:
    side = side_px(len(found))
    entries = [
        Entry(row=row, links=_links(row), layers=_layers(outcome, config, side))
        for outcome, row in zip(found, _records(table), strict=True)
    ]
    return Page(
        columns=columns(config.classes),
        entries=entries,
        classes=config.classes,
        tables=tables,
        figures=drawn,
        provenance={name: value for name, value in origin.items() if name != "samples"},
    )


def _links(row: dict[Any, Any]) -> dict[str, str]:
    return {label: quote(f"../{row[name]}") for name, label in _LINKS.items() if row[name]}


def _layers(outcome: Outcome, config: Settings, side: int) -> Layers | None:
    """Return the pictures of a sample, or None where there is nothing to show."""
    if outcome.mask is None:
        return None
    memory_mb = config.tiling.memory_mb
    try:
        with (
            open_slide(outcome.slide, memory_mb=memory_mb, view=_view(outcome)) as slide,
            open_slide(outcome.mask, memory_mb=memory_mb) as mask,
        ):
            truth = _truth(outcome, picture_shape(slide.shape, side), config)
            return layers_of(slide, mask, truth, side_px=side, num_classes=len(config.classes))
    except (SlidemillError, ValueError) as error:
        log.warning("no picture of %s: %s", outcome.sample, error)
        return None


def _view(outcome: Outcome) -> ImageConfig | None:
    """Return how the slide was read; its plan says it, the pixel size of the sample sheet included."""
    plan = read_plan(Path(paths.PLAN.format(model=outcome.model, sample=outcome.sample))).slide
    return plan.view if plan else None


def _truth(outcome: Outcome, shape: tuple[int, int], config: Settings) -> np.ndarray[Any, Any] | None:
    if outcome.reference is None or outcome.metrics is None:
        return None
    meaning = LabelConfig(classes=config.classes, kind=config.training.kind, values=config.training.values)
    with open_slide(outcome.reference, memory_mb=config.tiling.memory_mb) as reference:
        return class_map(shrink(reference, shape)[0], meaning, source=outcome.reference)


def _ranking_table(ranking: pd.DataFrame) -> Table:
    whole = {"rank", "samples", "failed", "parameters", "gflops_per_mpx", "stride_px", "context_px"}
    text = {"model", "architecture", "tiling", "paper"}
    return Table(
        title="Models",
        caption="Scores are means over the samples that all models with scores were evaluated on; sd, min and max are "
        "their spread. Exact: tiles give what one pass over the whole slide gives. Blended: the model looks at all of "
        "its window, so overlapping windows are averaged; tile_mismatch is the share of the pixels seen by two windows "
        "at which their labels differ.",
        columns=[
            Column(name=str(name), digits=None if name in text else 0 if name in whole else 3) for name in ranking
        ],
        rows=_records(ranking),
    )


def _folds_tables(parts: pd.DataFrame, config: Settings) -> list[Table]:
    if parts.empty:
        return []
    return [
        Table(
            title="Cross-validation",
            caption="Each training image was measured by the one network that had not seen it: means over the images "
            "of a fold, then mean, sample standard deviation and range over the folds. The model itself is the average "
            "of these networks and can be better than each.",
            columns=folds_columns(config.classes),
            rows=_records(parts),
        )
    ]


def _cohort_tables(summary: pd.DataFrame, pairs: pd.DataFrame) -> list[Table]:
    whole, text = {"samples", "groups"}, {"model", "other", "measure", "class"}
    made = []
    for title, caption, content in (
        (
            "Cohort",
            "Mean and median over samples, and the 95 % bootstrap interval of the mean; samples of one group of the "
            "sample sheet are drawn together.",
            summary,
        ),
        (
            "Models in pairs",
            "Median difference on the samples that both have a score of, and Wilcoxon's signed-rank test over groups.",
            pairs,
        ),
    ):
        named = [Column(name=str(name), digits=None if name in text else 0 if name in whole else 4) for name in content]
        made.append(Table(title=title, caption=caption, columns=named, rows=_records(content)))
    return [table for table in made if table.rows]


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table; None where a cell is empty."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
