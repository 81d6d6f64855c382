"""The sample sheet: what a user knows of samples and no file says."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import SlidemillError

_COLUMNS = ("sample", "group")


def read_groups(sheet: Path, samples: Iterable[str]) -> dict[str, str]:
    """Return the group of each sample from a sample sheet (CSV with the columns sample and group); none without one.

    Parameters
    ----------
    sheet : Path
        It may be missing.
    samples : iterable of str
        Samples there are; a line about another one is most likely a misspelt one.

    Raises
    ------
    SlidemillError
        If the file cannot be read, a column is missing, a cell is empty, or a sample is unknown or named twice.
    """
    if not sheet.is_file():
        return {}
    known, groups = set(samples), dict[str, str]()
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SlidemillError(f"{sheet}: not a readable CSV file: {error}") from error
    for number, line in enumerate(lines, start=2):
        for column in _COLUMNS:
            if column not in line:
                raise SlidemillError(f"{sheet}: no column {column!r}; a sample sheet has {' and '.join(_COLUMNS)}")
            if not line[column]:
                raise SlidemillError(f"{sheet}: line {number} has no {column}; fill it in or remove the line")
        if line["sample"] in groups:
            raise SlidemillError(f"{sheet}: line {number} names {line['sample']!r} again; remove one of the lines")
        if line["sample"] not in known:
            raise SlidemillError(f"{sheet}: line {number}: no slide {line['sample']!r}; mend or remove the line")
        groups[line["sample"]] = line["group"]
    return groups
