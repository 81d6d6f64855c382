"""The order of the samples on the page: worst first."""

from __future__ import annotations

import math
from typing import Any

from pipeline.metrics.names import HEADLINE
from pipeline.report.page.page_types import Entry, State

STATES: tuple[State, ...] = ("failed", "flagged", "good", "waiting")


def worst_first(entry: Entry) -> tuple[int, float, str, str]:
    """Return the sort key of an entry, the worst first; without a Dice, last of its state."""
    score: Any = entry.row.get(HEADLINE)
    return (
        STATES.index(entry.state),
        score if is_number(score) else math.inf,
        str(entry.row["sample"]),
        str(entry.row["model"]),
    )


def is_number(value: Any) -> bool:
    """Return whether a cell is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
