"""The sample sheet: what a user knows of samples and no file says."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import SlidemillError

_COLUMNS = ("group", "pixel_size_um")


def read_groups(sheet: Path, samples: Iterable[str]) -> dict[str, str]:
    """Return the group of each sample from a sample sheet (CSV with the columns sample and group); none without them.

    Parameters
    ----------
    sheet : Path
        It may be missing.
    samples : iterable of str
        Samples there are; lines about others are passed over (:func:`read_strangers`).

    Raises
    ------
    SlidemillError
        If the file cannot be read, a column is missing, a cell is empty, or a sample is named twice.
    """
    groups, known = {}, set(samples)
    for number, line in _read_lines(sheet):
        if "group" in line and line["sample"] in known:
            if not line["group"]:
                raise SlidemillError(f"{sheet}: line {number} has no group; fill it in or remove the line")
            groups[line["sample"]] = line["group"]
    return groups


def read_pixel_sizes(sheet: Path, samples: Iterable[str]) -> dict[str, float]:
    """Return the pixel size in µm of each sample that the sheet states one of, in the column pixel_size_um.

    Raises
    ------
    SlidemillError
        As above, or if a cell is neither empty nor a positive number.
    """
    sizes, known = {}, set(samples)
    for number, line in _read_lines(sheet):
        if not (text := (line.get("pixel_size_um") or "").strip()) or line["sample"] not in known:
            continue
        try:
            size = float(text)
        except ValueError:
            size = math.nan
        if not 0 < size < math.inf:
            raise SlidemillError(f"{sheet}: line {number}: pixel_size_um is a positive number, got {text!r}; mend it")
        sizes[line["sample"]] = size
    return sizes


def read_strangers(sheet: Path, samples: Iterable[str]) -> list[tuple[int, str]]:
    """Return what the sheet names and is not there, with its line: it was deleted, or the name is misspelt."""
    known = set(samples)
    return [(number, line["sample"]) for number, line in _read_lines(sheet) if line["sample"] not in known]


def _read_lines(sheet: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a sheet by their numbers, each about a sample of its own."""
    if not sheet.is_file():
        return []
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            lines = list(enumerate(csv.DictReader(file, strict=True), start=2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SlidemillError(f"{sheet}: not a readable CSV file: {error}") from error
    seen = set[str]()
    for number, line in lines:
        if "sample" not in line or not set(_COLUMNS) & set(line):
            missing = "sample" if "sample" not in line else "group"
            raise SlidemillError(
                f"{sheet}: no column {missing!r}; a sample sheet has sample and group (or pixel_size_um)"
            )
        if not line["sample"]:
            raise SlidemillError(f"{sheet}: line {number} has no sample; fill it in or remove the line")
        if line["sample"] in seen:
            raise SlidemillError(f"{sheet}: line {number} names {line['sample']!r} again; remove one of the lines")
        seen.add(line["sample"])
    return lines
