"""The table ``columns.csv``: meaning and unit of the columns of the tables of samples, classes, objects and regions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.base import paths
from pipeline.masks.measurements.dictionary import SCORE, measurements
from pipeline.report.columns import columns, short_columns
from pipeline.report.page.page_types import Column
from pipeline.report.tables import class_summary, regions
from pipeline.report.tables.all_objects import OF_SAMPLE
from pipeline.settings.measurements import MeasurementsConfig

# The first pattern that a name matches says its unit; what matches none is a share or a score between 0 and 1.
_UNITS = {
    r"_per_mm2$": "1/mm²",
    r"_um2(_|$)": "µm²",
    r"_mm2$": "mm²",
    r"_px$|^pixels": "px",
    r"^(hausdorff95|surface_distance|tolerance)": "as in distance_unit",
    r"^voi_": "bit",
}


def data_dictionary(
    classes: list[str],
    channels: list[int | str],
    measured: MeasurementsConfig,
    *,
    each: Sequence[str] = (),
    scored: bool = False,
) -> pd.DataFrame:
    """Return a row per table and column: ``table``, ``column``, ``meaning``, ``unit`` (empty for text and counts).

    Parameters
    ----------
    classes : list of str
        Background first.
    channels : list of int or str
        Channels that the networks see; each object has intensities in each.
    measured : MeasurementsConfig
        What is measured of objects.
    each : sequence of str
        ``t``, ``z`` or both, if the planes of stacks are segmented one by one.
    scored : bool
        Whether a network gives its objects a score.
    """
    all_metrics = columns(classes)
    by_name = {column.name: column for column in all_metrics}
    of_planes = [regions.OF_PLANE[axis] for axis in ("z", "t") if axis in each]
    tables = {
        paths.METRICS_TABLE: [by_name[name] for name in short_columns(classes)],
        paths.ALL_METRICS: all_metrics,
        paths.SUMMARY: class_summary.COLUMNS,
        paths.ALL_REGIONS: [*regions.COLUMNS[: len(OF_SAMPLE)], *of_planes, *regions.COLUMNS[len(OF_SAMPLE) :]],
    }
    rows = [(table, column.name, column.about, _unit(column)) for table, own in tables.items() for column in own]
    listed = measurements(measured, classes, channels, each) + [SCORE] * scored
    rows += [(paths.ALL_OBJECTS, name, about, "") for name, about in OF_SAMPLE.items()]
    rows += [(paths.ALL_OBJECTS, one.column, one.about, one.unit) for one in listed]
    rows += [(paths.ALL_REGIONS, *average) for average in regions.averages(listed)]
    found = pd.DataFrame(rows, columns=["table", "column", "meaning", "unit"])
    return found.assign(table=[Path(table).name for table in found["table"]])


def _unit(column: Column) -> str:
    if column.digits is None:
        return ""
    for pattern, unit in _UNITS.items():
        if re.search(pattern, column.name):
            return unit
    return "" if column.digits == 0 else "1"
