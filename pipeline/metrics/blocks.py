"""Work on a large image block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from dask.base import compute
from dask.delayed import delayed

BLOCK_PX = 1024

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def blocks(shape: tuple[int, ...], side: int = BLOCK_PX) -> Iterator[tuple[slice, slice]]:
    """Yield the regions of ``side`` x ``side`` pixels that cover ``shape``, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1]))


def in_threads(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> list[Result]:
    """Call a function for every piece, in as many threads as dask is set to; results in the order of the pieces."""
    return list(compute(*(delayed(function)(piece) for piece in pieces), scheduler="threads"))  # type: ignore[no-untyped-call]
