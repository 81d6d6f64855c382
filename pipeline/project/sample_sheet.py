"""The sample sheet: what a user knows of samples and no file says.

Only the process that plans a run reads it, and the report. No job has it as an input: a line about one sample redoes
nothing of another.
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
class Stated:
    """What a sheet says of one slide; None where it says nothing.

    Attributes
    ----------
    batch : str or None
        The slides that it is to be predicted with, in the place of the folder it was dropped in.
    pixel_size_um : float or None
        Where its file states none.
    channels : tuple of int and str or None
        In the place of ``image.channels``.
    """

    batch: str | None = None
    pixel_size_um: float | None = None
    channels: tuple[int | str, ...] | None = None


NOTHING = Stated()


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
    groups = {}
    for number, line in _lines_about(sheet, samples):
        if "group" in line:
            if not line["group"]:
                raise SlidemillError(f"{sheet}: line {number} has no group; fill it in or remove the line")
            groups[line["sample"]] = line["group"]
    return groups


def read_stated(sheet: Path, samples: Iterable[str], *, channels: int) -> dict[str, Stated]:
    """Return what the sheet states of each sample in the columns batch, pixel_size_um and channels; cells may be empty.

    Parameters
    ----------
    sheet, samples
        As above.
    channels : int
        How many channels the networks see.

    Raises
    ------
    SlidemillError
        As above, or if a cell is not what its column holds.
    """
    stated = {}
    for number, line in _lines_about(sheet, samples):
        where = f"{sheet}: line {number}"
        stated[line["sample"]] = Stated(
            batch=_batch(_cell(line, "batch"), where),
            pixel_size_um=_pixel_size(_cell(line, "pixel_size_um"), where),
            channels=_channels(_cell(line, "channels"), where, channels),
        )
    return stated


def read_strangers(sheet: Path, samples: Iterable[str]) -> list[tuple[int, str]]:
    """Return what the sheet names and is not there, with its line: it was deleted, or the name is misspelt."""
    known = set(samples)
    return [(number, line["sample"]) for number, line in _read_lines(sheet) if line["sample"] not in known]


def _cell(line: Line, column: str) -> str:
    return (line.get(column) or "").strip()


def _batch(text: str, where: str) -> str | None:
    if not text:
        return None
    if mistake_in(text) or not all(part.strip(".") for part in text.split("/")):
        raise SlidemillError(f"{where}: batch is a name that a folder can have, got {text!r}; mend it")
    return text


def _pixel_size(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise SlidemillError(f"{where}: pixel_size_um is a positive number, got {text!r}; mend it")
    return size


def _channels(text: str, where: str, count: int) -> tuple[int | str, ...] | None:
    if not text:
        return None
    names = [name.strip() for name in text.split(_BETWEEN_CHANNELS)]
    if len(names) != count or not all(names):
        raise SlidemillError(
            f"{where}: channels are {count} numbers or names with {_BETWEEN_CHANNELS!r} between them, as many as "
            f"image.channels has, got {text!r}; mend it"
        )
    return tuple(int(name) if name.isdecimal() else name for name in names)


def _lines_about(sheet: Path, samples: Iterable[str]) -> Iterator[tuple[int, Line]]:
    known = set(samples)
    return ((number, line) for number, line in _read_lines(sheet) if line["sample"] in known)


def _read_lines(sheet: Path) -> list[tuple[int, Line]]:
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
                f"{sheet}: no column {missing!r}; it has sample and group (or batch, pixel_size_um, channels)"
            )
        if not line["sample"]:
            raise SlidemillError(f"{sheet}: line {number} has no sample; fill it in or remove the line")
        if line["sample"] in seen:
            raise SlidemillError(f"{sheet}: line {number} names {line['sample']!r} again; remove one of the lines")
        seen.add(line["sample"])
    return lines
