"""Figures show the tables, are repeatable, and can be empty."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pipeline.report import figures
from pipeline.report.tables.cohort import COHORT_COLUMNS

CLASSES = ["background", "cell"]
HOSTILE = "$x_{<script>"  # neither a formula for matplotlib nor markup


def table_of(*models):
    rows = [
        {"model": model, "pixels_truth_background": 5, "dice_background": 0.9, "dice_cell": score}
        | {f"pixels_{true}_as_{label}": 1 + 2 * (true == label) for true in CLASSES for label in CLASSES}
        for model in models
        for score in (0.2, 0.5, np.nan)
    ]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else list(table_of("x").columns))


def cohort_of(*models):
    rows = [(model, "foreground_dice", "", "", 3, 3, 0.5, 0.5, 0.4, 0.6) for model in models]
    return pd.DataFrame(rows, columns=COHORT_COLUMNS)


def history():
    return pd.DataFrame({"elapsed_s": [60.0, 120.0], "foreground_dice": [0.5, 0.75]})


def draw_all(*models):
    return [
        figures.learning_curves({model: history() for model in models}),
        figures.dice_by_class(table_of(*models), CLASSES),
        figures.models_with_intervals(cohort_of(*models)),
        figures.confusion(table_of(*models), CLASSES),
    ]


@pytest.mark.parametrize("models", [(), ("unet",), ("unet", "segnet"), (HOSTILE,), tuple("abcdefghij")])
def test_every_figure_is_svg_that_can_be_drawn_again(models):
    drawn = draw_all(*models)
    assert drawn == draw_all(*models)
    for svg in drawn:
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "<script" not in svg


def test_a_dot_per_sample_with_a_score():
    svg = figures.dice_by_class(table_of("unet"), CLASSES)
    dots = re.search(r'<g id="PathCollection_2">.*?</g>\s*</g>', svg, flags=re.DOTALL)
    assert dots is not None
    assert dots.group().count("<use ") == 2  # of cell: one of three samples has none


def test_very_many_dots_are_one_picture():
    svg = figures.dice_by_class(pd.concat([table_of("unet")] * 700), CLASSES)
    assert len(svg) < 200_000
    assert "<image " in svg


def test_a_model_without_references_has_no_confusion():
    without = table_of("unet").assign(pixels=10, pixels_truth_background=np.nan)
    assert "nothing to show" in figures.confusion(without, CLASSES)
    assert figures.confusion(pd.concat([without, table_of("segnet")]), CLASSES).count("<!-- truth -->") == 1


def test_confusion_adds_up_rows():
    counts = table_of("unet")
    svg = figures.confusion(counts, CLASSES)
    assert svg.count("<!-- 75.0% -->") == svg.count("<!-- 25.0% -->") == 2
