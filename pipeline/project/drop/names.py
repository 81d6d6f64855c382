"""Which names mean the same: two Unicode forms of one text, a name with and without the suffix of its image."""

from __future__ import annotations

import bisect
import difflib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pipeline.project.drop.image_files import sample_id

Value = TypeVar("Value")

_MOST_COMPARED = 1000  # names, those before and after it in the alphabet


def matched(wanted: Iterable[str], found: Mapping[str, Value]) -> dict[str, tuple[str, Value]]:
    """Return what is found under each of the wanted names, and its own name; absent where there is nothing.

    The same name comes first, then one that differs in its Unicode form (macOS decomposes letters with accents), then
    one that has the suffix of an image too, such as ``a.tif`` of ``a.tif.geojson``. Upper and lower case differ.
    """
    names = set(wanted)
    spare = [name for name in found if name not in names]
    alike = {_composed(sample_id(name) or name): name for name in spare} | {_composed(name): name for name in spare}
    owns = {name: name if name in found else alike.get(_composed(name)) for name in (names if found else ())}
    return {name: (own, found[own]) for name, own in sorted(owns.items()) if own is not None}


def nearest_to(name: str, names: Iterable[str]) -> str:
    """Return the sentence that names the nearest of some names; empty if none is near."""
    known = {one.lower(): one for one in names}
    ordered, wanted = sorted(known), name.lower()
    first = max(0, bisect.bisect(ordered, wanted) - _MOST_COMPARED // 2)
    near = difflib.get_close_matches(wanted, ordered[first : first + _MOST_COMPARED], n=1, cutoff=0.5)
    return f"; the nearest name is {known[near[0]]!r}" if near else ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
