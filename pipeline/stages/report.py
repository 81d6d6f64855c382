"""Gather all samples, also the failed ones, into tables, figures and one page."""

from __future__ import annotations

import csv
import logging
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.base import paths
from pipeline.base.files import replacing, spreadsheet_text, write_json, write_text
from pipeline.project.sample_sheet import read_groups
from pipeline.report.columns import short_columns
from pipeline.report.histograms import histograms
from pipeline.report.outcome import outcomes
from pipeline.report.page.render import render
from pipeline.report.page_content import (
    cohort_tables,
    comparisons_tables,
    doubts_tables,
    draw_figures,
    folds_tables,
    ranking_table,
    region_cohort_tables,
    review_page,
)
from pipeline.report.provenance import collect_origin
from pipeline.report.results import results_table
from pipeline.report.tables.all_objects import gather
from pipeline.report.tables.class_summary import class_summary
from pipeline.report.tables.cohort import pair, summarize
from pipeline.report.tables.compared import partings_table, refinements_table
from pipeline.report.tables.comparison import rank_models
from pipeline.report.tables.data_dictionary import data_dictionary
from pipeline.report.tables.folds import folds_table
from pipeline.report.tables.region_cohort import pair_regions, region_numbers, summarize_regions
from pipeline.report.tables.regions import regions_tables
from pipeline.report.verification import verification_tables
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)


def run(*, output: Path, config: Settings) -> None:
    """Write tables, figures, provenance and the page from ledgers, histories, references and the sample sheet.

    Parameters
    ----------
    output : Path
        Folder to write report.html, provenance.json, figures and tables into; docs/contracts.md describes each table.
    config : Settings
        The whole configuration.
    """
    found = outcomes(config)
    failed = [outcome for outcome in found if outcome.status == "failed"]
    origin = collect_origin(found, config)
    groups = read_groups(Path(config.samples), {outcome.sample for outcome in found})
    table = results_table(found, config, groups)
    evidence = table[table["learned"] != "yes"]
    ranking = rank_models(evidence, config, found)
    gather(_below(output, paths.ALL_OBJECTS), found, groups, table_of=attrgetter("objects_table"))
    gather(_below(output, paths.ALL_REGIONS), found, groups, table_of=attrgetter("regions_table"))
    summary, pairs = summarize(evidence, config.classes, groups), pair(evidence, groups)
    numbers = region_numbers(_below(output, paths.ALL_REGIONS), config.classes[0])
    in_regions, between_regions = summarize_regions(numbers, groups), pair_regions(numbers, groups)
    parts = folds_table(config)
    written = {
        paths.METRICS_TABLE: table[short_columns(config.classes)],
        paths.ALL_METRICS: table,
        paths.COLUMNS: _columns(config),
        paths.SUMMARY: class_summary(found, config.classes, groups),
        paths.COMPARISON: ranking,
        paths.COHORT: pd.concat([summary, in_regions]),
        paths.PAIRED: pd.concat([pairs, between_regions]),
        paths.FOLDS: parts,
    }
    for path, content in written.items():
        _write_table(_below(output, path), content)
    drawn = draw_figures(evidence, summary, config)
    for name, figure in drawn.items():
        write_text(_below(output, paths.FIGURE.format(figure=name)), figure.svg)
    verifications, validation = verification_tables(origin["samples"]), folds_tables(parts, config.classes)
    tables = [
        ranking_table(ranking),
        *verifications,
        *validation,
        *cohort_tables(summary, pairs),
        *regions_tables(found),
        *region_cohort_tables(in_regions, between_regions),
        *comparisons_tables(partings_table(config), refinements_table(config)),
        *doubts_tables(config),
    ]
    shown = [*drawn.values(), *histograms(found, str(ranking["model"].iloc[0]), config.classes)]
    page = _below(output, paths.PAGE)
    write_text(page, render(review_page(found, table, tables, shown, config, origin)))
    write_json(_below(output, paths.PROVENANCE), origin)  # last: it says that all others are there
    flagged = int(((table["flags"] != "") & (table["status"] == "done")).sum())
    log.info("%d samples, %d failed, %d flagged; %s", len(found), len(failed), flagged, page)


def _columns(config: Settings) -> pd.DataFrame:
    """Return the meaning of every column."""
    return data_dictionary(
        config.classes,
        config.image.channels,
        config.measurements,
        each=config.image.each,
        scored=config.detects_objects,
    )


def _below(output: Path, path: str) -> Path:
    return output / Path(path).relative_to(paths.REPORT)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, as ``to_csv`` does in twice the time."""
    columns = [_cells(column) for _, column in table.items()]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(zip(*columns, strict=True))


def _cells(column: pd.Series[Any]) -> list[Any]:
    cells = column.astype(object).where(column.notna(), "").tolist()
    if pd.api.types.is_numeric_dtype(column):
        return cells
    return [spreadsheet_text(cell) if isinstance(cell, str) else cell for cell in cells]
