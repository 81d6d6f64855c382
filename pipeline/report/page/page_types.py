"""The types of the page: samples with their pictures, tables and figures."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pipeline.base import paths


def url_of(path: str, *, embedded: bool) -> str:
    """Return the URL of a file below the folder of the page: its content, or its relative path."""
    if embedded:
        return f"data:image/{Path(path).suffix[1:]};base64,{b64encode(Path(path).read_bytes()).decode()}"
    return quote(path.removeprefix(f"{paths.REPORT}/"))


State = Literal["failed", "flagged", "good", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Pictures of one result, to be stacked.

    ``urls`` are of files beside the page, or ``data:`` with their content, by the names of ``paths.PICTURE``; without a
    reference there are none of it. ``shape`` is rows and columns; ``plane`` says which plane of a stack they show.
    ``histograms`` are those of ``pipeline.report.histograms.histograms_of_sample``, whose objects the picture ``marks``
    has; it has ``marked`` of them.
    """

    urls: dict[str, str]
    shape: tuple[int, int]
    plane: str = ""
    histograms: dict[str, dict[str, Any]] = field(default_factory=dict)
    marked: int = 0


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """An image that was held back from a training, with the URLs of its pictures by the names of ``paths.PICTURE``."""

    training: str
    image: str
    foreground_dice: float | None
    urls: dict[str, str]


@dataclass(frozen=True)
class Column:
    """A column of a table: key in the rows, meaning, decimals (None: text), whether it is shown at first."""

    name: str
    about: str = ""
    digits: int | None = None
    leading: bool = True


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One sample under one model.

    ``row`` is its row of ``metrics-all.csv``, None where a cell is empty; ``links`` are relative URLs by label.
    """

    row: dict[str, Any]
    links: dict[str, str]
    layers: Layers | None

    @property
    def state(self) -> State:
        """``flagged`` is done with a quality warning, ``good`` is done without one."""
        if self.row["status"] == "failed":
            return "failed"
        if self.row["status"] == "waiting":
            return "waiting"
        return "flagged" if self.row.get("flags") else "good"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its caption. ``svg`` is a whole file; it is shown as an image, so no script in it can run."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table below the samples, in the order of ``rows``."""

    title: str
    caption: str
    columns: list[Column]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows. ``classes`` are in the order of their labels, the first is background.

    ``project`` is the name of its folder, ``date`` when the report was made.
    """

    project: str
    date: str
    columns: list[Column]
    entries: list[Entry]
    classes: list[str]
    tables: list[Table]
    figures: list[Figure]
    held_back: list[HeldBack]
    provenance: dict[str, Any]
