"""A mask that is cut: nothing outside, every pixel as it was inside, and each piece of an object is 4-connected."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.masks.cut import cut_images
from tests.support.masks import blobs, by_first_pixel, numbered


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), block_px=st.sampled_from([(16, 16), (13, 29), (64, 64)]))
def test_pieces_are_the_connected_parts_of_each_object_inside(tmp_path_factory, seed, block_px):
    generator = np.random.default_rng(seed)
    classes = blobs(generator, (50, 60), sigma=2)
    ids = numbered(classes) * 300  # ids of which many are equal in 8 bits
    ids[20:30] += (ids[20:30] > 0).astype(np.uint32)  # objects of one class that touch
    inside = blobs(generator, (50, 60), sigma=4)[None] > 0
    images = {"classes": classes, "instances": ids}
    found = cut_images(images, inside.astype(np.int32), scratch=tmp_path_factory.mktemp("cut"), block_px=block_px)
    np.testing.assert_array_equal(found["classes"][:, :], np.where(inside[0], classes, 0))
    expected = numbered(np.where(inside[0], ids, 0))  # skimage labels parts of equal values
    np.testing.assert_array_equal(found["instances"][:, :], by_first_pixel(expected))
    assert (found["classes"].dtype, found["instances"].dtype) == (np.uint8, np.uint32)


def test_a_mask_without_ids_has_none_afterwards(tmp_path):
    found = cut_images({"classes": np.ones((4, 5), np.uint8)}, np.zeros((1, 4, 5), np.int32), scratch=tmp_path)
    assert list(found) == ["classes"]
    assert not found["classes"][:, :].any()
