"""A lazy array is sliced as NumPy slices, and blocks partition an array."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import arrays
from pipeline.base.arrays import LazyArray, blocks, distinct, lookup, outside_the_heap

PIXELS = np.arange(2 * 5 * 7).reshape(2, 5, 7)
LAZY = LazyArray(PIXELS.shape, PIXELS.dtype, lambda *key: PIXELS[key])


@pytest.mark.parametrize("key", [1, slice(None), np.s_[:, 2:4], np.s_[0, :, 3:99], np.s_[:, 1:, :-2], np.s_[:, 4:2]])
def test_a_lazy_array_is_sliced_as_numpy_slices(key):
    np.testing.assert_array_equal(LAZY[key], PIXELS[key])
    table = np.arange(100, 200, dtype=np.uint8)
    np.testing.assert_array_equal(lookup(PIXELS, table)[key], table[PIXELS][key])


def test_a_lazy_array_asks_for_slices_with_both_ends():
    assert LazyArray((4, 6), np.dtype(bool), lambda *key: key)[1] == (1, slice(0, 6, 1))


@given(shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), block=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_blocks_cover_each_pixel_once(shape, block):
    covered = np.zeros(shape, int)
    for region in blocks(shape, block):
        assert covered[region].size > 0
        assert all(size <= most for size, most in zip(covered[region].shape, block, strict=True))
        covered[region] += 1
    assert (covered == 1).all()


def test_memory_outside_the_heap_is_used_again_when_its_last_view_is_gone(monkeypatch):
    monkeypatch.setattr(arrays, "_unused", deque(maxlen=2))
    first = outside_the_heap((30, 40), np.uint16)
    view, place = first[3:, 5:], first.ctypes.data
    del first
    view[:] = 7
    assert outside_the_heap((30, 40), np.uint16).ctypes.data != place
    assert (view == 7).all()
    del view
    assert outside_the_heap((601,), np.uint8).ctypes.data != place  # half of it would not be used
    again = outside_the_heap((20, 20, 3), np.uint16)
    assert (again.ctypes.data, again.shape, again.dtype) == (place, (20, 20, 3), np.uint16)


def test_a_few_unused_pieces_of_memory_are_kept(monkeypatch):
    monkeypatch.setattr(arrays, "_unused", deque(maxlen=2))
    pieces = [outside_the_heap((size,), np.uint8) for size in (0, 100, 1000, 10_000)]
    assert [len(piece) for piece in pieces] == [0, 100, 1000, 10_000]
    del pieces
    assert len(arrays._unused) == 2


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint32", "int64", "float32"])
@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 9), (7, 1), (13, 11)])
def test_distinct_numbers_are_those_of_numpy(shape, dtype):
    generator = np.random.default_rng(0)
    for most in (1, 2, 5, 200):
        numbers = generator.integers(0, most, shape).astype(dtype)
        np.testing.assert_array_equal(distinct(numbers), np.unique(numbers))
        np.testing.assert_array_equal(distinct(numbers[:, ::-2]), np.unique(numbers[:, ::-2]))
