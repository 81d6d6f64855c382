"""Work on the blocks of a large image in threads, a few at a time, so that memory does not grow with their number.

Results that may be merged in any grouping go through :func:`map_and_merge`, a graph of tasks that dask runs. Results
that are needed one after the other, to be written or numbered, come from :func:`in_order`. Both use the threads of the
job (``pipeline/runtime/threads.py``) and give the same for any number of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import dask
from dask.delayed import delayed
from dask.system import CPU_COUNT

from pipeline.base.arrays import bands

_MERGED = 8  # results at a time

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Value = TypeVar("Value")


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
    pieces = list(pieces)
    if len(pieces) <= 1:  # a graph takes longer than the block of a small image
        return merge([function(piece) for piece in pieces])
    results = [delayed(function)(piece) for piece in pieces]
    while len(results) > _MERGED:
        results = [delayed(merge)(results[some]) for some in bands(len(results), _MERGED)]
    merged: Result = delayed(merge)(results).compute(scheduler="threads")
    return merged


def in_order(
    tasks: Iterable[Callable[[], Value]], *, threads: int | None = None, ahead: int | None = None
) -> Iterator[Value]:
    """Run tasks in threads, a few ahead of the consumer; yield their results in order.

    The exception of a task is raised in its place, when those that run have ended; tasks that have not started by then
    are not run. A stream that is closed before its end, or left to the garbage collector, waits for none: that may be
    in any thread, also in one that a running task needs. The tasks themselves are made in the thread of the consumer,
    each when there is room for it; so they may come from another stream of results.

    Parameters
    ----------
    threads : int, optional
        By default, those of the job; a job with one thread runs each task when its result is asked for.
    ahead : int, optional
        Tasks that are running or done while a result is in use; by default as many as threads.
    """
    if threads is None:
        threads = int(dask.config.get("num_workers", None) or CPU_COUNT)
        if threads == 1:
            yield from (task() for task in tasks)
            return
    waiting: deque[Future[Value]] = deque()
    pool, is_left = ThreadPoolExecutor(threads), False
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > (threads if ahead is None else ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except GeneratorExit:
        is_left = True
        raise
    finally:
        pool.shutdown(wait=not is_left, cancel_futures=True)
