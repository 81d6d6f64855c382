"""The page as HTML: fills the template ``page.html.j2``, and writes ``page.css`` and ``page.js`` into it."""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.base.palette import CONFUSED_RGB, EXTRA_RGB, MISSED_RGB, class_rgb, css
from pipeline.report.page.page_types import Column, Entry, Layers, Page, State
from pipeline.report.page.sort_order import is_number, worst_first

# They differ in shape, not only in colour.
_SIGNS: dict[State, str] = {"failed": "✕", "flagged": "⚑", "good": "✓", "waiting": "…"}
_ERRORS = [
    ("extra: predicted, not in the truth", css(EXTRA_RGB)),
    ("missed: in the truth, not predicted", css(MISSED_RGB)),
    ("confused: predicted as another class", css(CONFUSED_RGB)),
]


def render(page: Page) -> str:
    """Return the page as HTML: failed samples first, then flagged ones, then by mean Dice, the lowest first."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report.page", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": _shown, "exact": _exact, "svg_url": _svg_url}
    entries = sorted(page.entries, key=worst_first)
    several = len({entry.row["model"] for entry in entries}) > 1
    hidden = {"status"} if several else {"status", "model"}  # the state says more than the status
    columns = [column for column in page.columns if column.name not in hidden]
    further = [column for column in columns if not column.leading]
    script = _source("page.js")
    return environment.get_template("page.html.j2").render(
        page=page,
        entries=entries,
        columns=[column for column in columns if column.leading],
        further=further,
        further_cells=[[_cell(column, entry.row) for column in further] for entry in entries],
        several=several,
        counts={state: sum(entry.state == state for entry in entries) for state in _SIGNS},
        failures=_failures(entries),
        signs=_SIGNS,
        legend=[(name, css(class_rgb(index))) for index, name in enumerate(page.classes) if index > 0],
        errors=_ERRORS if len(page.classes) > 2 else _ERRORS[:2],
        pictures=[_pictures(entry.layers) for entry in entries],
        style=_source("page.css"),
        script=script,
        policy=_policy(script),
    )


def _failures(entries: list[Entry]) -> list[list[tuple[int, Entry]]]:
    """Return the failed entries with their places, grouped by reason: a training fails for all samples."""
    groups: dict[tuple[Any, Any], list[tuple[int, Entry]]] = {}
    for place, entry in enumerate(entries):
        if entry.state == "failed":
            groups.setdefault((entry.row["stage"], entry.row["error"]), []).append((place, entry))
    return list(groups.values())


def _pictures(layers: Layers | None) -> dict[str, Any] | None:
    """Return the pictures of one result for the script, in base64."""
    if layers is None:
        return None
    files_by_name = {name: getattr(layers, name) for name in ("image", "predicted", "truth", "error")}
    encoded = {name: b64encode(content).decode() for name, content in files_by_name.items() if content is not None}
    return encoded | {"shape": layers.shape}


def _cell(column: Column, row: dict[str, Any]) -> float | str | None:
    """Return a cell that the script shows on demand: a page of many columns would load slowly."""
    value = row.get(column.name)
    exact = _exact(value) if column.digits is not None else None
    return _shown(value) or None if exact is None else float(exact) if "." in exact else int(exact)


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


def _policy(script: str) -> str:
    """Return the content security policy: nothing is loaded, only this script runs, images are data URLs."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
