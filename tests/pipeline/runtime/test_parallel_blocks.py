"""Results are merged or yielded in the order of the pieces, and few of them are in memory at a time."""

import threading
import weakref
from functools import partial
from itertools import chain

import dask
import numpy as np
import pytest

from pipeline.runtime.parallel_blocks import in_order, map_and_merge


@pytest.mark.parametrize("count", [0, 1, 8, 9, 500])
def test_results_are_merged_in_the_order_of_the_pieces(count):
    assert map_and_merge(lambda piece: [piece], range(count), lambda parts: [*chain(*parts)]) == list(range(count))


def test_memory_does_not_grow_with_the_number_of_pieces():
    alive, most = weakref.WeakSet(), []

    class Result(np.ndarray):
        __hash__ = object.__hash__

    def count(piece):
        result = np.full(3, piece).view(Result)
        alive.add(result)
        most.append(len(alive))
        return result

    with dask.config.set(num_workers=2):
        total = map_and_merge(count, range(1000), lambda parts: np.sum(np.asarray(parts), axis=0))
    assert total.tolist() == [sum(range(1000))] * 3
    assert max(most) < 60


def test_tasks_run_in_threads_and_come_back_in_order():
    """Two tasks that wait for each other can only end if they run at the same time."""
    meeting = threading.Barrier(2, timeout=20)

    def task(number):
        if number in {1, 2}:
            meeting.wait()
        return number

    tasks = [lambda number=number: task(number) for number in range(6)]
    assert list(in_order(tasks, threads=2, ahead=3)) == list(range(6))


def test_no_task_runs_further_ahead_than_asked():
    begun = []
    stream = in_order([lambda number=number: begun.append(number) for number in range(20)], threads=4, ahead=3)
    next(stream)
    stream.close()
    assert max(begun) <= 3


def test_a_stream_that_is_left_waits_for_no_task():
    """The garbage collector may close it in a thread that a task waits for."""
    left, ended = threading.Event(), []

    def last():
        left.wait(30)
        ended.append(True)

    stream = in_order([lambda: 1, last, last], threads=2, ahead=2)
    assert next(stream) == 1
    stream.close()
    assert not ended
    left.set()


def test_the_exception_of_a_task_is_raised_in_its_place():
    def fail():
        raise OSError("no disk")

    stream = in_order([lambda: 1, fail, lambda: 3], threads=2, ahead=2)
    assert next(stream) == 1
    with pytest.raises(OSError, match="no disk"):
        next(stream)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_by_default_as_many_tasks_run_at_a_time_as_the_job_has_threads(threads):
    running, most = set(), []
    lock, meeting = threading.Lock(), threading.Barrier(threads, timeout=20)

    def task(number):
        with lock:
            running.add(number)
            most.append(len(running))
        if number < threads:
            meeting.wait()
        with lock:
            running.remove(number)
        return number

    with dask.config.set(num_workers=threads):
        assert list(in_order([partial(task, number) for number in range(50)])) == list(range(50))
    assert max(most) == threads


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_tasks_may_come_from_another_stream(threads):
    with dask.config.set(num_workers=threads):
        halves = in_order(partial(divmod, number, 2) for number in range(40))
        assert list(in_order(partial(sum, pair) for pair in halves)) == [sum(divmod(n, 2)) for n in range(40)]
