"""Results are merged in the order of the pieces, and few of them are in memory at a time."""

import weakref
from itertools import chain

import dask
import numpy as np
import pytest

from pipeline.metrics.parallel_blocks import map_and_merge


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
