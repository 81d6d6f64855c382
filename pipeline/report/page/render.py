"""The page as HTML: fills the template ``page.html.j2``, and writes style and scripts into it."""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Iterable
from importlib.resources import files
from itertools import takewhile
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.base.palette import (
    CONFUSED_RGB,
    EXTRA_RGB,
    MARKED_RGB,
    MISSED_RGB,
    PREDICTED_RGB,
    TRUTH_RGB,
    class_rgb,
    css,
)
from pipeline.masks.measurements.dictionary import entry_of
from pipeline.report.page.page_types import Column, Entry, Layers, Page, State
from pipeline.report.page.sort_order import is_number, worst_first

# They differ in shape, not only in colour.
_SIGNS: dict[State, str] = {"failed": "✕", "flagged": "⚑", "good": "✓", "waiting": "…"}
_MOST_WITHOUT_SCRIPT = 100  # rows of HTML, for browsers that run no script
_MOST_WITH_ALL_COLUMNS = 2000  # entries; the page of more would be large
_OUTLINES = [("prediction", css(PREDICTED_RGB)), ("reference", css(TRUTH_RGB))]
_ERRORS = [
    ("extra: predicted, not in the truth", css(EXTRA_RGB)),
    ("missed: in the truth, not predicted", css(MISSED_RGB)),
    ("confused: predicted as another class", css(CONFUSED_RGB)),
]
_NAMES = ("sample", "model")  # the columns that stand first


def render(page: Page) -> str:
    """Return the page as HTML: failed samples first, then flagged ones, then by foreground Dice, the lowest first.

    The samples are data, of which the script draws the rows in sight. Those of a page with more than 2000 have the
    leading columns only.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report.page", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": _shown, "exact": _exact, "svg_url": _svg_url}
    entries = sorted(page.entries, key=worst_first)
    several = len({entry.row["model"] for entry in entries}) > 1
    columns, further = _columns(page.columns, several=several, all_columns=len(entries) <= _MOST_WITH_ALL_COLUMNS)
    script = _source("histogram.js") + _source("page.js")
    return environment.get_template("page.html.j2").render(
        page=page,
        entries=entries,
        columns=columns,
        further=further,
        several=several,
        has_all_columns=len(entries) <= _MOST_WITH_ALL_COLUMNS,
        most_without_script=_MOST_WITHOUT_SCRIPT,
        counts={state: sum(entry.state == state for entry in entries) for state in _SIGNS},
        failures=_failures(entries),
        signs=_SIGNS,
        outlines=_OUTLINES,
        legend=[(name, css(class_rgb(index))) for index, name in enumerate(page.classes) if index > 0],
        marked=css(MARKED_RGB),
        errors=_ERRORS if len(page.classes) > 2 else _ERRORS[:2],
        data=_data(entries, [*columns, *further]),
        style=_source("page.css"),
        script=script,
        policy=_policy(script, _is_alone(page)),
    )


def _columns(columns: list[Column], *, several: bool, all_columns: bool) -> tuple[list[Column], list[Column]]:
    """Return the columns that are shown at first, names before numbers before texts; and those shown on demand."""
    hidden = {"status"} if several else {"status", "model"}  # the state says more than the status
    shown = [column for column in columns if column.name not in hidden]
    leading = [column for column in shown if column.leading]
    leading.sort(key=lambda column: (column.name not in _NAMES, column.digits is None))
    return leading, [column for column in shown if not column.leading] if all_columns else []


def _data(entries: list[Entry], columns: list[Column]) -> dict[str, Any]:
    """Return what the script draws: for each entry its state and cells, its links and its pictures.

    What many entries share is there once, and has a number: the ends of URLs, the names of measurements.
    """
    endings: dict[str, int] = {}
    measurements: dict[str, int] = {}
    return {
        "signs": _SIGNS,
        "cells": [[entry.state, *(_cell(column, entry.row) for column in columns)] for entry in entries],
        "links": [entry.links for entry in entries],
        "pictures": [entry.layers and _pictures(entry.layers, endings, measurements) for entry in entries],
        "endings": [json.loads(ending) for ending in endings],
        "measurements": list(measurements),
    }


def _pictures(layers: Layers, endings: dict[str, int], measurements: dict[str, int]) -> dict[str, Any]:
    """Return the pictures of an entry, of a stack also the plane that they show, and histograms if there are some."""
    start = _common_start(layers.urls.values())
    ending = json.dumps({name: url.removeprefix(start) for name, url in layers.urls.items()})
    histograms = [
        [_number_of(_title(name), measurements), _short(own["low"]), _short(own["high"]), own["counts"]]
        for name, own in layers.histograms.items()
    ]
    found = {"shape": layers.shape, "start": start, "ending": _number_of(ending, endings)}
    found |= {"plane": layers.plane} if layers.plane else {}
    return found | ({"histograms": histograms, "marked": layers.marked} if histograms else {})


def _common_start(texts: Iterable[str]) -> str:
    """Return the longest text that all of them begin with."""
    places = takewhile(lambda characters: len(set(characters)) == 1, zip(*texts, strict=False))
    return "".join(first for first, *_ in places)


def _number_of(text: str, numbers: dict[str, int]) -> int:
    return numbers.setdefault(text, len(numbers))


def _title(column: str) -> str:
    entry = entry_of(column)
    return entry.title if entry else column


def _short(value: float) -> float | int:
    """Return a number with the digits that are shown."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _failures(entries: list[Entry]) -> list[list[tuple[int, Entry]]]:
    """Return the failed entries with their places, grouped by reason: a training fails for all samples."""
    groups: dict[tuple[Any, Any], list[tuple[int, Entry]]] = {}
    for place, entry in enumerate(entries):
        if entry.state == "failed":
            groups.setdefault((entry.row["stage"], entry.row["error"]), []).append((place, entry))
    return list(groups.values())


def _cell(column: Column, row: dict[str, Any]) -> float | str | None:
    """Return a cell that the script shows; a number is rounded to the decimals that are shown: few bytes for each."""
    value: Any = row.get(column.name)
    if column.digits is None or not is_number(value):
        return _shown(value) or None
    rounded = round(value, column.digits)
    return int(rounded) if rounded == int(rounded) else rounded


def _shown(value: Any, digits: int | None = None) -> str:
    """Return the text of a cell; a number has ``digits`` decimals."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value) if digits is None or not is_number(value) else f"{value:.{digits}f}"


def _exact(value: Any) -> str | None:
    """Return the number that a cell is sorted and filtered by; None if it is empty or text."""
    if not is_number(value):
        return None
    return str(int(value)) if value == int(value) else f"{value:.9g}"


def _svg_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def _source(name: str) -> Markup:
    """Return the text of a file of this package."""
    return Markup(files("pipeline.report.page").joinpath(name).read_text("utf-8"))


def _is_alone(page: Page) -> bool:
    """Return whether the page has all its pictures in it."""
    urls = [entry.layers.urls for entry in page.entries if entry.layers] + [image.urls for image in page.held_back]
    return all(each["image"].startswith("data:") for each in urls)


def _policy(script: str, alone: bool) -> str:
    """Return the content security policy: only this script runs, images are data URLs or files beside the page."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    images = "data:" if alone else "data: 'self'"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src {images}; "
        "base-uri 'none'; form-action 'none'"
    )
