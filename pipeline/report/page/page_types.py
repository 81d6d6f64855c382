"""The types of the page: samples with their pictures, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["failed", "flagged", "good", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Pictures of one result, to be stacked: ``image`` is WebP, the others are PNG.

    ``shape`` is rows and columns of ``image``. ``truth`` and ``error`` are None without a reference.
    """

    image: bytes
    predicted: bytes
    truth: bytes | None
    error: bytes | None
    shape: tuple[int, int]


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

    ``row`` is its row of ``metrics.csv``, None where a cell is empty; ``links`` are relative URLs by label.
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
    """All that the page shows. ``classes`` are in the order of their labels, the first is background."""

    columns: list[Column]
    entries: list[Entry]
    classes: list[str]
    tables: list[Table]
    figures: list[Figure]
    provenance: dict[str, Any]
