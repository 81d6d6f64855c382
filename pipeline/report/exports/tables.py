"""The table of objects of several samples: as CSV, as Parquet, or a piece at a time."""

from __future__ import annotations

import csv
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline.base.files import replacing
from pipeline.masks.measurements.dictionary import entry_of
from pipeline.report.exports.selection import Selection, needed
from pipeline.report.tables.all_objects import OF_SAMPLE, gather


def write_csv(output: Path, chosen: Selection) -> None:
    """Write a row per object, with sample, model and group before the columns of docs/measurements.md."""
    gather(output, chosen.outcomes, chosen.groups, table_of=attrgetter("objects_table"))


def write_parquet(output: Path, chosen: Selection) -> None:
    """Write the same table as Parquet: text, whole numbers of 64 bits and float64; an empty cell is null."""
    polars = needed("polars", "parquet")
    kinds = {"text": polars.String, "whole": polars.Int64, "number": polars.Float64}
    with replacing(output) as temporary:
        table = gathered(temporary, chosen)
        schema = {name: kinds[kind_of(name)] for name in columns_in(table)}
        polars.scan_csv(table, schema=schema).sink_parquet(temporary, compression="zstd")


def gathered(temporary: Path, chosen: Selection) -> Path:
    """Write the CSV file of all objects beside a file that is being replaced, and goes with its folder."""
    table = temporary.with_name(f"{temporary.name}.csv")
    write_csv(table, chosen)
    return table


def columns_in(table: Path) -> list[str]:
    """Return the names of the columns of a CSV file."""
    with table.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def kind_of(column: str) -> str:
    """Return what the cells of a column of this table are: ``text``, ``whole`` or ``number``."""
    entry: Any = entry_of(column)
    if column in OF_SAMPLE or (entry and entry.is_text):
        return "text"
    return "whole" if entry and entry.is_whole else "number"
