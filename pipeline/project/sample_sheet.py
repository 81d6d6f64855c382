"""The sample sheet: a CSV file with what a user knows of samples and their files do not say.

Only the process that plans a run and the report read it. No job has it as an input, so that a changed line about one
sample does not redo others.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.project.image_files import mistake_in

_COLUMNS = ("group", "batch", "pixel_size_um", "channels")
_BETWEEN_CHANNELS = ";"

Line = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """What a sheet says of one slide; None for empty cells.

    Attributes
    ----------
    batch : str or None
        The slides that it is predicted with, instead of those of its folder.
    pixel_size_um : float or None
        Used if its file has none.
    channels : tuple of int and str or None
        Used instead of ``image.channels``.
    """

    batch: str | None = None
    pixel_size_um: float | None = None
    channels: tuple[int | str, ...] | None = None


def read_groups(sheet: Path, samples: Iterable[str]) -> dict[str, str]:
    """Return the group of each sample; empty without a sheet or its column ``group``.

    Parameters
    ----------
    sheet : Path
        It may be missing.
    samples : iterable of str
        Existing samples; lines about others are ignored (:func:`read_unknown`).

    Raises
    ------
    SlidemillError
        If the file cannot be read, a column is missing, a cell is empty, or a sample is named twice.
    """
    groups = {}
    for number, line in _lines_about(sheet, samples):
        if "group" in line:
            if not line["group"]:
                raise SlidemillError(f"{sheet}: line {number} has no group; fill it in or remove the line")
            groups[line["sample"]] = line["group"]
    return groups


def read_rows(sheet: Path, samples: Iterable[str], *, channels: int) -> dict[str, SheetRow]:
    """Return the columns batch, pixel_size_um and channels of each sample; cells may be empty.

    Parameters
    ----------
    sheet, samples
        As above.
    channels : int
        Number of channels that the networks use.

    Raises
    ------
    SlidemillError
        As above, or if a cell has a value that its column does not allow.
    """
    rows = {}
    for number, line in _lines_about(sheet, samples):
        where = f"{sheet}: line {number}"
        rows[line["sample"]] = SheetRow(
            batch=_batch(_cell(line, "batch"), where),
            pixel_size_um=_pixel_size(_cell(line, "pixel_size_um"), where),
            channels=_channels(_cell(line, "channels"), where, channels),
        )
    return rows


def read_unknown(sheet: Path, samples: Iterable[str]) -> list[tuple[int, str]]:
    """Return line number and name of samples that do not exist: deleted, or misspelt."""
    known = set(samples)
    return [(number, line["sample"]) for number, line in _read_lines(sheet) if line["sample"] not in known]


def _cell(line: Line, column: str) -> str:
    return (line.get(column) or "").strip()


def _batch(text: str, where: str) -> str | None:
    if not text:
        return None
    if mistake_in(text) or not all(part.strip(".") for part in text.split("/")):
        raise SlidemillError(f"{where}: batch must be a valid folder name, got {text!r}; fix it")
    return text


def _pixel_size(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise SlidemillError(f"{where}: pixel_size_um must be a positive number, got {text!r}; fix it")
    return size


def _channels(text: str, where: str, count: int) -> tuple[int | str, ...] | None:
    if not text:
        return None
    names = [name.strip() for name in text.split(_BETWEEN_CHANNELS)]
    if len(names) != count or not all(names):
        raise SlidemillError(
            f"{where}: channels must be {count} numbers or names (as many as in image.channels) separated by "
            f"{_BETWEEN_CHANNELS!r}, got {text!r}; fix it"
        )
    return tuple(int(name) if name.isdecimal() else name for name in names)


def _lines_about(sheet: Path, samples: Iterable[str]) -> Iterator[tuple[int, Line]]:
    known = set(samples)
    return ((number, line) for number, line in _read_lines(sheet) if line["sample"] in known)


def _read_lines(sheet: Path) -> list[tuple[int, Line]]:
    """Return line numbers and lines of a sheet, at most one line per sample."""
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
                f"{sheet}: no column {missing!r}; it has sample and group (or batch, pixel_size_um, channels)"
            )
        if not line["sample"]:
            raise SlidemillError(f"{sheet}: line {number} has no sample; fill it in or remove the line")
        if line["sample"] in seen:
            raise SlidemillError(f"{sheet}: line {number} names {line['sample']!r} again; remove one of the lines")
        seen.add(line["sample"])
    return lines
