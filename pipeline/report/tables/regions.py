"""The table ``regions.csv``: what there is of each class in each region of each slide; and the one on the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pandas as pd

from pipeline.base import paths
from pipeline.masks.measurements.dictionary import Measurement, has_mean, is_positive
from pipeline.report.outcome import Outcome
from pipeline.report.page.page_types import Column, Table
from pipeline.report.tables.all_objects import OF_SAMPLE

_MOST_ROWS = 500  # on the page

COLUMNS = [
    *(Column(name, about) for name, about in OF_SAMPLE.items()),
    Column("region", "Name of the region; tissue or slide where none was drawn."),
    Column("class", "The class; the first one is the background, which has no objects."),
    Column("region_area_px", "Pixels of the region: those whose centre is in it.", digits=0),
    Column("region_area_mm2", "The same in mm²; empty if the pixel size is not known.", digits=6),
    Column("objects", "Objects of the class whose centroid is in the region; empty for the background.", digits=0),
    Column("objects_per_mm2", "Objects / area of the region in mm².", digits=2),
    Column("area_px", "Pixels of the class in the region.", digits=0),
    Column("area_mm2", "The same in mm²; empty if the pixel size is not known.", digits=6),
    Column("area_fraction", "Pixels of the class in the region / pixels of the region.", digits=4),
]
# After those of the sample, if the planes of stacks are segmented one by one
OF_PLANE = {
    "z": Column("z", "Number of the plane in the stack, from 0; with image.z: each.", digits=0),
    "t": Column("t", "Number of the time point, from 0; with image.t: each.", digits=0),
}
_ON_PAGE = {
    *OF_PLANE,
    *("sample", "model", "region", "class", "region_area_px", "region_area_mm2", "objects", "objects_per_mm2"),
    "area_fraction",
}


def averages(listed: Sequence[Measurement]) -> Iterator[tuple[str, str, str]]:
    """Yield the columns after these, counts of positive objects and means over objects: name, meaning and unit."""
    for one in listed:
        if is_positive(one.column):
            yield one.column, f"Objects of the class in the region of which this is 1. {one.about}", ""
    for one in listed:
        if is_positive(one.column):
            yield f"{one.column}_share", f"The same / objects of which it is known; empty without any. {one.about}", "1"
    about = {"mean": "Mean over these objects", "sd": "Sample standard deviation over these objects; empty below two"}
    for one in listed:
        if not one.is_text and has_mean(one.column):
            for what, text in about.items():
                yield f"{one.column}_{what}", f"{text}. {one.about}", one.unit or "1"


def regions_tables(found: list[Outcome]) -> list[Table]:
    """Return the table of the page, of slides with regions that were drawn; none if there are none."""
    drawn = [one for one in found if one.is_done and one.regions_table and one.found["objects"]["regions"]]
    rows = list(islice((row for outcome in drawn for row in _rows(outcome)), _MOST_ROWS + 1))
    if not rows:
        return []
    caption = (
        "Area of each region that was drawn; of each class in it the objects (by their centroids), their density, and "
        "the share of the area."
    )
    if len(rows) > _MOST_ROWS:
        caption += f" These are the first {_MOST_ROWS} rows; {paths.ALL_REGIONS} has all, with means over objects."
    shown = [column for column in COLUMNS if column.name in _ON_PAGE]
    shown[2:2] = [column for axis, column in OF_PLANE.items() if axis in rows[0]]
    shares = dict.fromkeys(name for row in rows for name in row if _is_share(name))
    shown += [Column(name, "Share of the objects that are positive.", digits=4) for name in shares]
    return [Table(title="Regions", caption=caption, columns=shown, rows=rows[:_MOST_ROWS])]


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    table = pd.read_csv(str(outcome.regions_table), dtype={"region": str}, keep_default_na=False, na_values=[""])
    table = table[[name for name in map(str, table) if name in _ON_PAGE or _is_share(name)]].assign(
        sample=outcome.sample, model=outcome.model
    )
    cells = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in cells.to_dict("records")]


def _is_share(column: str) -> bool:
    return is_positive(column) and column.endswith("_share")
