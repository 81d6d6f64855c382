"""Work on the blocks of a large image in threads, as a graph of tasks that dask runs.

dask brings what a thread pool lacks: one setting for the number of threads (``pipeline/runtime/threads.py``), and an
order of tasks that merges results as soon as they are there, so that memory does not grow with the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from dask.delayed import delayed

from pipeline.base.arrays import bands

_MERGED = 8  # results at a time

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def map_and_merge(
    function: Callable[[Piece], Result], pieces: Iterable[Piece], merge: Callable[[list[Result]], Result]
) -> Result:
    """Call a function for every piece and merge the results, as a tree.

    Parameters
    ----------
    pieces : iterable
        In the order in which results are merged.
    merge : callable
        Returns the merged result of a list of results, which is empty if there are no pieces. It must give the same
        whether results are merged at once or in several steps.
    """
    results = [delayed(function)(piece) for piece in pieces]
    while len(results) > _MERGED:
        results = [delayed(merge)(results[some]) for some in bands(len(results), _MERGED)]
    merged: Result = delayed(merge)(results).compute(scheduler="threads")
    return merged
