"""Objects found band by band are those of the whole image, numbers included."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.measure
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.instances import find_objects

small_maps = arrays(np.uint8, st.tuples(st.integers(1, 15), st.integers(1, 15)), elements=st.integers(0, 2))


@given(labels=small_maps, band_px=st.integers(1, 60))
def test_bands_equal_the_whole(labels, band_px, tmp_path_factory):
    found = find_objects(labels, scratch=tmp_path_factory.mktemp("scratch"), band_px=band_px)
    expected = skimage.measure.label(labels, background=0, connectivity=1)
    np.testing.assert_array_equal(found[:], expected)
    assert found.count == expected.max()


@pytest.mark.parametrize("band_px", [700, 5_000, 10**9])
def test_blobs_across_many_bands(tmp_path, generator, band_px):
    labels = (scipy.ndimage.gaussian_filter(generator.random((700, 650)), 4) > 0.5).astype(np.uint8)
    found = find_objects(labels, scratch=tmp_path, band_px=band_px)
    np.testing.assert_array_equal(found[:], skimage.measure.label(labels, connectivity=1))


def test_a_spiral_through_all_bands_is_one_object(tmp_path):
    labels = np.zeros((9, 9), np.uint8)
    for ring in range(0, 5, 2):
        labels[ring : 9 - ring, ring] = labels[ring, ring : 9 - ring] = labels[8 - ring, ring : 9 - ring] = 1
        labels[ring : 9 - ring, 8 - ring] = 1
    labels[1, 1] = labels[2, 1] = labels[3, 3] = labels[4, 3] = 1
    found = find_objects(labels, scratch=tmp_path, band_px=9)
    np.testing.assert_array_equal(found[:], skimage.measure.label(labels, connectivity=1))
