"""What the review page shows: figures, tables and pictures, from the results of all samples."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pipeline.base import paths
from pipeline.metrics.names import HEADLINE
from pipeline.project.jobs.ledger import network_ledger_path, read_ledger
from pipeline.project.jobs.todo import PICTURES
from pipeline.report import figures
from pipeline.report.columns import columns
from pipeline.report.held_back import read_held_back
from pipeline.report.outcome import Outcome
from pipeline.report.page.page_types import Column, Entry, Figure, Layers, Page, Table, url_of
from pipeline.report.tables.folds import folds_columns
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)

MOST_EMBEDDED = 175  # results whose pictures are in the page, which has at most 15 MB then and can be mailed
_LINKS = {"mask": "mask", "metrics": "metrics", "objects_table": "objects", "annotations": "QuPath", "log": "log"}
_MOST_WAITING = 0.1  # of a prediction, without advice
_ADVICE = {
    "reading_share": "pixels: give predict more threads, copy the slides to a local disk, or save them uncompressed or "
    "with zstd or zlib in tiles",
    "writing_share": "writing: put the project on a local disk, or keep no probabilities",
}
_MOST_ROWS = 500  # of a table of regions
_TEXTS = {"way", "settings", "used", "model", "other", "measure", "class", "region", "other_region"}
_TEXTS |= {"architecture", "tiling", "paper"}
_COUNTS = {"rank", "samples", "groups", "failed", "parameters", "gflops_per_mpx", "stride_px", "context_px"}


def draw_figures(table: pd.DataFrame, summary: pd.DataFrame, settings: Settings) -> dict[str, Figure]:
    """Return the figures by the name of their file; the histories of trainings are read from the current folder."""
    trained = {name: Path(paths.HISTORY.format(model=name)) for name in settings.trainings}
    histories = {name: pd.read_csv(path) for name, path in trained.items() if path.is_file()}
    histories = {name: history for name, history in histories.items() if HEADLINE in history}  # not of older versions
    return {
        "learning": Figure(
            title="Learning curves",
            caption="Mean Dice of the foreground classes on the images held back from training. The network of the end "
            "is kept; with patience, that of the highest point.",
            svg=figures.learning_curves(histories),
        ),
        "dice": Figure(
            title="Dice by class",
            caption="A dot per sample, a diamond at the median, a line from the first to the third quartile.",
            svg=figures.dice_by_class(table, settings.classes),
        ),
        "models": Figure(
            title="Models",
            caption="Mean over groups of the mean Dice of the foreground classes, with its 95 % interval.",
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
    """Return the page of all samples; ``table`` has a row for each of ``found``, in the same order.

    Pictures of up to 175 results are part of the page; more stay in their files, which are beside it.
    """
    embedded = len(found) <= MOST_EMBEDDED
    entries = [
        Entry(row=row, links=_links(row), layers=_layers(outcome, embedded=embedded))
        for outcome, row in zip(found, _rows(table), strict=True)
    ]
    return Page(
        project=Path.cwd().name,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        columns=columns(settings.classes),
        entries=entries,
        classes=settings.classes,
        tables=tables,
        figures=drawn,
        held_back=read_held_back(settings, embedded=embedded),
        provenance={name: value for name, value in origin.items() if name != "samples"},
    )


def ranking_table(ranking: pd.DataFrame) -> Table:
    """Return the table of all networks."""
    return _table(
        "Models",
        "Ranked by foreground_dice, the mean Dice of all classes but the first; dice_mean is with the background. "
        "Scores are means over the samples that all models with scores were evaluated on; sd, min and max are their "
        "spread. Exact: tiled prediction equals one pass over the whole slide. Blended: the model uses its whole "
        "window, so overlapping windows are averaged; tile_mismatch is the share of the pixels in two windows "
        "that they label differently. network_share is the part of the prediction in which the network computed, "
        f"reading_share and writing_share are those in which it waited.{_slowed_down(ranking)}",
        ranking,
        digits=3,
    )


def _slowed_down(ranking: pd.DataFrame) -> str:
    """Return a sentence on what to change if a network waited for more than a tenth of its prediction."""
    waited = [(row[part], row["model"], part) for row in _rows(ranking) for part in _ADVICE if row[part] is not None]
    share, model, part = max(waited, default=(0.0, "", ""))
    return f" {model} waited {share:.0%} of it for {_ADVICE[part]}." if share > _MOST_WAITING else ""


def folds_tables(folds: pd.DataFrame, classes: list[str]) -> list[Table]:
    """Return the table of the cross-validation, or none."""
    caption = (
        "Each training image was measured by the one network that was trained without it: means over the images of a "
        "fold, then mean, sample standard deviation and range over the folds. The model itself averages these networks "
        "and can be better than each."
    )
    table = Table(title="Cross-validation", caption=caption, columns=folds_columns(classes), rows=_rows(folds))
    return [table] if table.rows else []


def doubts_tables(settings: Settings) -> list[Table]:
    """Return the table of what the ledgers of networks say is doubtful about their images, or none."""
    images: dict[tuple[str, str], dict[str, None]] = {}
    made = [("train", name, model) for name, (model, _) in settings.trainings.items()]
    made += [("combine", name, name) for name in settings.averages]
    for stage, name, model in made:
        for entry in read_ledger(network_ledger_path(stage, name)).values():
            for warning in entry.found.get("warnings", ()):
                image, _, doubt = warning.partition(": ")
                images.setdefault((model, doubt), {})[image] = None
    caption = "What is doubtful about the training images and their labels, with the first of the images."
    named = [Column(name="model"), Column(name="images", digits=0), Column(name="image"), Column(name="doubt")]
    rows = [
        {"model": model, "images": len(those), "image": next(iter(those)), "doubt": doubt}
        for (model, doubt), those in images.items()
    ]
    return [Table(title="Training images", caption=caption, columns=named, rows=rows)] if rows else []


def comparisons_tables(partings: pd.DataFrame, refinements: pd.DataFrame) -> list[Table]:
    """Return the tables of what was compared on held-back images: ways to tell objects apart, random fields."""
    objects = (
        "Objects on the images held back from training, by each way to tell them apart (masks.instances) with its best "
        "settings: mean F1 over IoU 0.5 to 0.9, and adapted Rand error. The way that is used is marked; model.json has "
        "all settings that were compared. Ensembles whose members do not hold back the same images, as folds, have the "
        "means of their members."
    )
    fields = (
        "Foreground Dice of all pixels of the images held back from training, after each conditional random field "
        "(masks.crf) and without one. The one that is used is marked."
    )
    tables = [
        _table("Objects", objects, partings, digits=4),
        _table("Random fields", fields, refinements, digits=4),
    ]
    return [table for table in tables if table.rows]


def cohort_tables(summary: pd.DataFrame, pairs: pd.DataFrame) -> list[Table]:
    """Return the tables of means and of models in pairs; none that is empty or of one sample, which has no spread."""
    means = (
        "Mean, median and the 95 % interval of the mean (Student's t), over the groups of the sample sheet; without "
        "it, every sample is a group."
    )
    tests = (
        "Median over groups of the difference on the samples that both have a score for, and Wilcoxon's signed-rank "
        "test over groups; fewer than six groups cannot give a p below 0.05."
    )
    scores = summary.drop(columns=["region"])
    of_models = pairs.drop(columns=["class", "region", "other_region"])
    tables = [_table("Cohort", means, scores, digits=4), _table("Models in pairs", tests, of_models, digits=4)]
    return [table for table in tables if any(row["samples"] > 1 for row in table.rows)]


def region_cohort_tables(summary: pd.DataFrame, pairs: pd.DataFrame) -> list[Table]:
    """Return the tables of regions over all samples: means, and two regions or two models; none that is empty."""
    means = (
        "Density, share of the area and share of positive objects of each class in the regions that several samples "
        f"have: mean, median and the 95 % interval of the mean (Student's t) over groups, as {paths.COHORT} has them."
    )
    tests = (
        "Median over groups of the difference between two regions, or two models, on the samples that have both, and "
        "Wilcoxon's signed-rank test over groups; p-values are not corrected for the number of tests."
    )
    tables = [
        _table("Regions over samples", means, summary[:_MOST_ROWS], digits=4),
        _table("Regions in pairs", tests, pairs[:_MOST_ROWS], digits=4),
    ]
    return [table for table in tables if table.rows]


def _table(title: str, caption: str, content: pd.DataFrame, *, digits: int) -> Table:
    decimals = dict.fromkeys(_TEXTS) | dict.fromkeys(_COUNTS, 0)
    named = [Column(name=str(name), digits=decimals.get(str(name), digits)) for name in content]
    return Table(title=title, caption=caption, columns=named, rows=_rows(content))


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table; None where a cell is empty."""
    cells = [column.astype(object).where(column.notna(), None).tolist() for _, column in table.items()]
    names = list(table.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def _links(row: dict[Any, Any]) -> dict[str, str]:
    return {label: quote(f"../{row[name]}") for name, label in _LINKS.items() if row[name]}


def _layers(outcome: Outcome, *, embedded: bool) -> Layers | None:
    """Return the pictures of a sample, or None where there is nothing to show."""
    if "objects" not in outcome.found:
        return None
    stages = [stage for stage in ("objects", "evaluate") if stage in outcome.found]
    files = {
        name: paths.PICTURE[name].format(model=outcome.model, sample=outcome.sample)
        for stage in stages
        for name in PICTURES[stage]
    }
    try:
        urls = {name: url_of(path, embedded=embedded) for name, path in files.items()}
    except OSError as reason:
        log.warning("no picture of %s: %s", outcome.sample, reason)
        return None
    shown = outcome.found["objects"]
    rows, columns = shown["picture_px"]
    plane = ", ".join(f"{axis} {number}" for axis, number in shown.get("picture_plane", {}).items())
    return Layers(
        urls=urls,
        shape=(rows, columns),
        plane=f"{plane} (of {shown['planes']} planes)" if plane else "",
        histograms=shown["histograms"],
        marked=shown["marked"],
    )
