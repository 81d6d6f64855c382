"""A lazy array is sliced as NumPy slices, and blocks partition an array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.arrays import LazyArray, blocks, lookup

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
