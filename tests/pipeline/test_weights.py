"""The weight map equals the published formula, computed here pixel by pixel and object by object."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.draw
from hypothesis import given
from hypothesis import strategies as st

from pipeline.weights import class_weights, weight_map

ONES = np.ones(2)


def direct(objects, classes, class_weight, boundary_weight, sigma_px):
    """Equation 2 of the paper with one distance transform of the whole image per object."""
    ids = [index for index in np.unique(objects) if index > 0]
    if len(ids) < 2:
        return class_weight[classes]
    distances = np.sort([scipy.ndimage.distance_transform_edt(objects != index) for index in ids], axis=0)
    return class_weight[classes] + boundary_weight * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma_px**2))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 8), sigma_px=st.sampled_from([2.0, 5.0]))
def test_it_is_the_formula(seed, count, sigma_px):
    generator = np.random.default_rng(seed)
    objects = np.zeros((60, 70), dtype=np.int32)
    for index in range(1, count + 1):
        centre, radius = generator.integers(0, 60, 2), generator.integers(2, 9)
        objects[skimage.draw.disk(centre, radius, shape=objects.shape)] = index
    classes = (objects > 0).astype(np.uint8)
    class_weight = np.array([0.6, 2.5])
    weights = weight_map(classes, objects, class_weight=class_weight, boundary_weight=10.0, sigma_px=sigma_px)
    np.testing.assert_allclose(weights, direct(objects, classes, class_weight, 10.0, sigma_px), rtol=0, atol=2e-6)


def test_between_two_pixels_by_hand():
    objects = np.array([[1, 0, 0, 2]], dtype=np.int32)
    weights = weight_map((objects > 0).astype(np.uint8), objects, class_weight=ONES, boundary_weight=10.0, sigma_px=5.0)
    np.testing.assert_allclose(weights, 1 + 10 * np.exp(-(3**2) / 50) * np.ones((1, 4)), rtol=1e-6)  # d1 + d2 = 3


@pytest.mark.parametrize("objects", [np.zeros((5, 5)), np.eye(5)])
def test_fewer_than_two_objects_have_no_boundary(objects):
    objects = objects.astype(np.int32)
    weights = weight_map(objects.astype(np.uint8), objects, class_weight=ONES, boundary_weight=10.0, sigma_px=5.0)
    assert (weights == 1).all()


def test_no_boundary_weight_leaves_the_class_weights():
    objects = np.array([[1, 0, 2]], dtype=np.int32)
    classes = (objects > 0).astype(np.uint8)
    weights = weight_map(classes, objects, class_weight=np.array([1.0, 3.0]), boundary_weight=0.0, sigma_px=5.0)
    assert weights.tolist() == [[3.0, 1.0, 3.0]]


def test_class_weights_by_hand():
    assert class_weights(np.array([75, 25])).tolist() == pytest.approx([2 / 3, 2.0])  # 100 / (2 * 75), 100 / (2 * 25)
    assert class_weights(np.array([50, 0, 50])).tolist() == [1.0, 1.0, 1.0]


@given(counts=st.lists(st.integers(1, 10**9), min_size=2, max_size=6))
def test_class_weights_are_one_on_average_over_pixels(counts):
    counts = np.array(counts)
    assert (class_weights(counts) * counts).sum() / counts.sum() == pytest.approx(1.0)
