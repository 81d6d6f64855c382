"""The table ``summary.csv``: what there is of each class in each slide."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from pipeline.report.outcome import Outcome, pixel_um2
from pipeline.report.page.page_types import Column
from pipeline.report.tables.all_objects import OF_SAMPLE

UM2_PER_MM2 = 1e6

COLUMNS = [
    *(Column(name, about) for name, about in OF_SAMPLE.items()),
    Column("class", "The class; the first one is the background, which has no objects."),
    Column("count", "Objects of the class; empty for the background.", digits=0),
    Column("area_px", "Pixels of the class.", digits=0),
    Column("area_mm2", "The same in mm²; empty if the pixel size is not known.", digits=6),
    Column("share", "Pixels of the class / pixels of the slide.", digits=4),
    Column("density_per_mm2", "Objects of the class per mm² of the slide.", digits=2),
    Column("median_area_px", "Median area of the objects of the class; empty without objects.", digits=1),
    Column("median_area_um2", "The same in µm²; empty if the pixel size is not known.", digits=2),
]


def class_summary(found: list[Outcome], classes: list[str], groups: Mapping[str, str]) -> pd.DataFrame:
    """Return a row per sample that is done, network and class, in the order of ``found`` and ``classes``.

    Parameters
    ----------
    found : list of Outcome
        All samples.
    classes : list of str
        Background first.
    groups : mapping of str
        Group by sample.

    Returns
    -------
    DataFrame
        :data:`COLUMNS`; a cell without a value is NaN.
    """
    rows = []
    for outcome in found:
        if not outcome.is_done:
            continue
        measured, pixels, um2 = outcome.found["objects"], outcome.found["tile"]["pixels"], pixel_um2(outcome)
        each = zip(
            classes, measured["class_objects"], measured["class_pixels"], measured["class_median_area_px"], strict=True
        )
        for index, (name, objects, own, median) in enumerate(each):
            count = objects if index else math.nan
            median_px = math.nan if median is None else median
            rows.append(
                {
                    "sample": outcome.sample,
                    "model": outcome.model,
                    "group": groups.get(outcome.sample),
                    "class": name,
                    "count": count,
                    "area_px": own,
                    "area_mm2": own * um2 / UM2_PER_MM2,
                    "share": own / pixels,
                    "density_per_mm2": count / (pixels * um2 / UM2_PER_MM2),
                    "median_area_px": median_px,
                    "median_area_um2": median_px * um2,
                }
            )
    table = pd.DataFrame(rows, columns=[column.name for column in COLUMNS])
    return table.astype({"count": "Int64", "area_px": "Int64"})
