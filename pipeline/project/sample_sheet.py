"""The sample sheet: a CSV file with what a user knows of samples and their files do not say.

Only the process that plans a run and the report read it. No job has it as an input, so that a changed line about one
sample does not redo others.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.project.drop.image_files import mistake_in
from pipeline.project.drop.names import matched, nearest_to

_COLUMNS = ("group", "batch", "pixel_size_um", "channels")
_BETWEEN_CHANNELS = ";"
_NEARLY_THE_SAME = 0.8  # of two names of columns, see difflib
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

Line = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """What a sheet says of one slide; None for empty cells.

    Attributes
    ----------
    batch : str or None
        The slides that it is predicted with, instead of those of its folder.
    pixel_size_um : float or None
        Used whatever its file says.
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
    """Return line number and name of samples that do not exist: deleted, or misspelt.

    Raises
    ------
    SlidemillError
        As above, or if no line is about an existing sample: then the sheet belongs to other files.
    """
    names = list(samples)
    lines = _read_lines(sheet)
    known = {number for number, _ in _lines_about(sheet, names)}
    unknown = [(number, line["sample"]) for number, line in lines if number not in known]
    if names and unknown and not known:
        raise SlidemillError(
            f"{sheet}: no line is about one of the {len(names)} images, such as {names[0]!r}; the column sample has "
            f"{unknown[0][1]!r} in line {unknown[0][0]}{nearest_to(unknown[0][1], names)}; it must be the path below "
            "the folder of images, without suffix"
        )
    return unknown


def _cell(line: Line, column: str) -> str:
    return (line.get(column) or "").strip()


def _batch(text: str, where: str) -> str | None:
    if not text:
        return None
    if mistake_in(text):
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
    """Yield the lines about samples, under the name of the sample."""
    lines = {line["sample"]: (number, line) for number, line in _read_lines(sheet)}
    seen: dict[int, str] = {}
    for name, (_, (number, line)) in matched(samples, lines).items():
        if number in seen:
            raise SlidemillError(f"{sheet}: line {number} is about {seen[number]!r} and {name!r}; name one of them")
        seen[number] = name
        yield number, line | {"sample": name}


def _read_lines(sheet: Path) -> list[tuple[int, Line]]:
    """Return line numbers and lines of a sheet, at most one line per sample."""
    if not sheet.is_file():
        return []
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(sheet, reader.fieldnames or ())
            lines = list(enumerate(reader, start=2))
    except UnicodeDecodeError as error:
        raise SlidemillError(f"{sheet}: not UTF-8 text; save it as CSV in UTF-8 (Excel: 'CSV UTF-8')") from error
    except (OSError, csv.Error) as error:
        raise SlidemillError(
            f"{sheet}: not a readable CSV file: {getattr(error, 'strerror', None) or error}; save it again"
        ) from error
    seen = set[str]()
    for number, line in lines:
        if None in line:
            raise SlidemillError(f"{sheet}: line {number} has more cells than the first line; quote commas in cells")
        if not line["sample"]:
            raise SlidemillError(f"{sheet}: line {number} has no sample; fill it in or remove the line")
        if line["sample"] in seen:
            raise SlidemillError(f"{sheet}: line {number} names {line['sample']!r} again; remove one of the lines")
        seen.add(line["sample"])
    return lines


def _check_header(sheet: Path, found: Sequence[str]) -> None:
    """Refuse a sheet without the columns, and say what its first line is instead; also one with a misspelt column."""
    known = ("sample", *_COLUMNS)
    for mark, name in _OTHER_SEPARATORS.items():
        if "sample" not in found and any(mark in column for column in found):
            raise SlidemillError(f"{sheet}: its columns are separated by {name}; save it with commas")
    for column in filter(str.strip, found):  # spreadsheets add empty ones
        if found.count(column) > 1:
            raise SlidemillError(f"{sheet}: the column {column!r} is there {found.count(column)} times; remove one")
        near = difflib.get_close_matches(column.strip().lower(), known, n=1, cutoff=_NEARLY_THE_SAME)
        if near and column not in known:
            raise SlidemillError(f"{sheet}: a column is {column!r}; write it {near[0]!r}, or rename it")
    if "sample" not in found or not set(_COLUMNS) & set(found):
        wanted = f"sample and at least one of {', '.join(_COLUMNS)}"
        raise SlidemillError(f"{sheet}: its columns are {', '.join(map(repr, found)) or 'missing'}; it needs {wanted}")
