"""The table ``objects.csv``: those of all slides that are done, one below the other; other tables likewise."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import BinaryIO

from pipeline.base.files import replacing, spreadsheet_text
from pipeline.report.outcome import Outcome

_TOGETHER = 2**20  # bytes of a table that are held at a time
OF_SAMPLE = {
    "sample": "Path of the slide below the drop folder, without its suffix.",
    "model": "Name of the network in the configuration.",
    "group": "Group of the sample sheet: an animal, a patient, a field.",
}


def gather(
    output: Path, found: list[Outcome], groups: Mapping[str, str], *, table_of: Callable[[Outcome], str | None]
) -> None:
    """Write the tables of all samples that are done into one, in the order of ``found``, a piece at a time.

    Columns that a slide does not have (it was read with other channels) are empty.

    Parameters
    ----------
    table_of : callable
        Returns the path of the table of a sample.

    Raises
    ------
    StorageError
        If writing fails (full disk, quota, no permission).
    """
    done = [(outcome, Path(path)) for outcome in found if outcome.is_done and (path := table_of(outcome))]
    headers = [_header(table) for _, table in done]
    names = list(dict.fromkeys(name for header in dict.fromkeys(map(tuple, headers)) for name in header))
    with replacing(output) as temporary, temporary.open("wb") as file:
        file.write(_line([*OF_SAMPLE, *names]))
        for (outcome, table), header in zip(done, headers, strict=True):
            named = [spreadsheet_text(text) for text in (outcome.sample, outcome.model, groups.get(outcome.sample, ""))]
            _append(file, table, _line(named).removesuffix(b"\n") + b",", header, names)


def _append(file: BinaryIO, table: Path, named: bytes, header: list[str], names: list[str]) -> None:
    """Append the rows of one table, each after ``named``; as they are if they have all columns.

    That is many times as fast. No cell has a line end: names that have one are refused where they enter.
    """
    if header == names:
        with table.open("rb") as rows:
            rows.readline()
            while lines := rows.read(_TOGETHER) + rows.readline():
                file.write(named + lines.removesuffix(b"\n").replace(b"\n", b"\n" + named) + b"\n")
        return
    with table.open(newline="", encoding="utf-8") as rows_of_text:
        for row in csv.DictReader(rows_of_text):
            file.write(named + _line([row.get(name, "") for name in names]))


def _header(table: Path) -> list[str]:
    with table.open("rb") as file:
        return _cells(file.readline())


@cache
def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode()]))


def _line(cells: list[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()
