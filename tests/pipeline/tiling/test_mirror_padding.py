"""A window read with mirrored pixels is numpy's reflect padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tiling.grid import Region
from pipeline.tiling.mirror_padding import mirror, read_mirrored


@given(size=st.integers(1, 12), before=st.integers(0, 40), after=st.integers(0, 40))
def test_mirror_is_numpys_reflect_as_often_as_needed(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(mirror(-before, size + after, size), expected)


@given(data=st.data(), shape=st.tuples(st.integers(2, 20), st.integers(2, 20)))
def test_a_window_is_cut_from_the_mirror_padded_slide_and_only_the_slide_is_read(data, shape):
    pixels = np.random.default_rng(0).integers(0, 255, (2, *shape))
    top, left = (data.draw(st.integers(-30, 20)) for _ in range(2))
    height, width = (data.draw(st.integers(1, 30)) for _ in range(2))
    window = Region(top=top, left=left, bottom=top + height, right=left + width)

    def read(rows, columns):
        assert 0 <= rows.start < rows.stop <= shape[0]
        assert 0 <= columns.start < columns.stop <= shape[1]
        return pixels[:, rows, columns]

    padded = np.pad(pixels, ((0, 0), (60, 60), (60, 60)), mode="reflect")
    expected = padded[:, top + 60 : top + 60 + height, left + 60 : left + 60 + width]
    found = read_mirrored(read, shape, window)
    np.testing.assert_array_equal(found, expected)
    is_inside = min(top, left) >= 0 and top + height <= shape[0] and left + width <= shape[1]
    assert np.shares_memory(found, pixels) == is_inside
    assert found.strides[2] == found.itemsize
