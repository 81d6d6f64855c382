"""Work on a large image block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from dask.base import compute
from dask.delayed import delayed

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_threads(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """Call a function for every piece, in as many threads as dask is set to; results in the order of the pieces."""
    return list(compute(*(delayed(function)(piece) for piece in pieces), scheduler="threads"))  # type: ignore[no-untyped-call]
