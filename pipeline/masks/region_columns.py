"""Which numbers in the table of objects are averaged in the table of regions."""

from __future__ import annotations

import re

# Of an object, a mean says nothing of which one it is, where it lies and how it is turned.
_WITHOUT_MEAN = re.compile(r"id|(centroid_.*|top|left|bottom|right)_px|orientation.*")


def has_mean(column: str) -> bool:
    """Return whether a number in the table of objects is one to average."""
    return _WITHOUT_MEAN.fullmatch(column) is None
