"""Gather all samples, also the failed ones, into tables, figures and one page."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, spreadsheet_text, write_json, write_text
from pipeline.project.sample_sheet import read_groups
from pipeline.report.cohort import pair, summarize
from pipeline.report.comparison import rank_models
from pipeline.report.folds import folds_table
from pipeline.report.outcome import outcomes
from pipeline.report.page.render import render
from pipeline.report.page_content import cohort_tables, draw_figures, folds_tables, ranking_table, review_page
from pipeline.report.provenance import collect_origin
from pipeline.report.results import results_table
from pipeline.report.verification import verification_tables
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)


def run(*, output: Path, provenance: Path | None = None, config: Settings) -> None:
    """Write tables, figures and the page from slides, references, sample sheet, ``results/`` and ``logs/``.

    Parameters
    ----------
    output : Path
        Folder to write report.html, figures and tables into; docs/contracts.md describes each table.
    provenance : Path, optional
        JSON to write if no sample failed; without it, a result older than its sources counts as missing.
    config : Settings
        The whole configuration.

    Raises
    ------
    SlidemillError
        If ``provenance`` is given although a sample failed, for example one that the drop folder refused.
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
    ranking = rank_models(table, config, sorted({outcome.batch for outcome in found if outcome.batch}))
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
    drawn = draw_figures(table, summary, config)
    for name, figure in drawn.items():
        write_text(_below(output, paths.FIGURE.format(figure=name)), figure.svg)
    verifications, validation = verification_tables(origin["samples"]), folds_tables(parts, config.classes)
    tables = [ranking_table(ranking), *verifications, *validation, *cohort_tables(summary, pairs)]
    page = _below(output, paths.PAGE)
    write_text(page, render(review_page(found, table, tables, list(drawn.values()), config, origin)))
    flagged = int((table["flags"] != "").sum())
    log.info("%d samples, %d failed, %d flagged; %s", len(found), len(failed), flagged, page)


def _below(output: Path, path: str) -> Path:
    return output / Path(path).relative_to(paths.REPORT)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    safe = table.map(lambda cell: spreadsheet_text(str(cell)) if isinstance(cell, str | Path) else cell)
    with replacing(path) as temporary:
        safe.to_csv(temporary, index=False)
