"""The weight map equals the published formula, computed object by object."""

import tracemalloc

import numpy as np
import pytest
import skimage.draw
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.training.data.weight_map import class_weights, reach_px, weight_bands, weight_map
from tests.support.weight_maps import PUBLISHED, direct, random_objects

ONES = np.ones(2)

few_ids = st.sampled_from([0, 0, 0, 1, 2, 7, 900])  # with gaps; blocks of them touch, and lie in several pieces
coarse = arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=few_ids)


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


@settings(deadline=None)
@given(coarse=coarse, size=st.integers(1, 12))
def test_it_is_the_formula_for_touching_objects_of_any_shape(coarse, size):
    objects = np.kron(coarse, np.ones((size, size), dtype=np.int32))
    classes = (objects > 0).astype(np.uint8)
    weights = weight_map(classes, objects, class_weight=ONES, **PUBLISHED)
    np.testing.assert_allclose(weights, direct(objects, classes, ONES, 10.0, 5.0), rtol=0, atol=1e-5)


def test_the_reach_is_where_the_term_is_a_millionth():
    """Between two pixels d1 + d2 is their distance."""
    assert reach_px(**PUBLISHED) == 29
    for apart, is_reached in ((28, True), (29, False)):
        objects = np.zeros((1, 40), dtype=np.int32)
        objects[0, [0, apart]] = 1, 2
        term = weight_map(np.zeros((1, 40), np.uint8), objects, class_weight=np.zeros(1), **PUBLISHED)[0, 1]
        assert (term > 1e-6) == is_reached


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(20, 90), columns=st.integers(20, 90))
def test_bands_are_the_map_of_the_whole_image(seed, rows, columns):
    """Bit for bit, though every region gives its objects other ids."""
    objects = random_objects(seed, (130, 170))
    classes = (objects > 0).astype(np.uint8)
    settings = {"class_weight": np.array([0.5, 3.0]), **PUBLISHED}

    def read(*region):
        _, numbers = np.unique(np.append(0, objects[region]), return_inverse=True)
        return classes[region], numbers[1:].reshape(objects[region].shape).astype(np.int32)

    bands = list(weight_bands(read, objects.shape, **settings, block_px=(rows, columns)))
    assert [len(band) for band in bands[:-1]] == [rows] * (len(bands) - 1)
    whole = weight_map(classes, objects, **settings).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate(bands), whole)


@pytest.mark.slow
def test_memory_does_not_grow_with_rows():
    """Eight times as many rows full of objects take no more."""

    def read(rows, columns):
        row, column = np.ogrid[rows, columns]
        objects = np.where((row % 10 < 6) & (column % 10 < 6), 1 + row // 10 % 7 * 60 + column // 10, 0)
        return (objects > 0).astype(np.uint8), objects.astype(np.int32)

    peaks = []
    for rows in (512, 4096):
        tracemalloc.start()
        bands = weight_bands(read, (rows, 600), class_weight=ONES, **PUBLISHED, block_px=(128, 300))
        assert sum(len(band) for band in bands) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_very_rare_class_has_the_largest_float16_instead_of_infinity():
    classes = np.array([[0, 1]], dtype=np.uint8)
    (band,) = weight_bands(
        lambda *region: (classes[region], np.zeros((1, 2), np.int32)),
        (1, 2),
        class_weight=np.array([1.0, 1e6]),
        **PUBLISHED,
    )
    assert band.tolist() == [[1.0, 65504.0]]


def test_between_two_pixels_by_hand_and_zero_where_nothing_is_annotated():
    objects = np.array([[1, 0, 0, 2]], dtype=np.int32)
    classes = np.array([[1, 0, 255, 1]], dtype=np.uint8)
    weights = weight_map(classes, objects, class_weight=ONES, **PUBLISHED)
    expected = [[1, 1 + 10 * np.exp(-(3**2) / 50), 0, 1]]  # d1 + d2 = 3
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_no_boundary_weight_leaves_the_class_weights():
    objects = np.array([[1, 0, 2]], dtype=np.int32)
    classes = (objects > 0).astype(np.uint8)
    weights = weight_map(classes, objects, class_weight=np.array([1.0, 3.0]), **PUBLISHED | {"boundary_weight": 0.0})
    assert weights.tolist() == [[3.0, 1.0, 3.0]]


def test_class_weights_by_hand():
    assert class_weights(np.array([75, 25])).tolist() == pytest.approx([2 / 3, 2.0])  # 100 / (2 * 75), 100 / (2 * 25)
    assert class_weights(np.array([50, 0, 50])).tolist() == [1.0, 1.0, 1.0]


@given(counts=st.lists(st.integers(1, 10**9), min_size=2, max_size=6))
def test_class_weights_are_one_on_average_over_pixels(counts):
    counts = np.array(counts)
    assert (class_weights(counts) * counts).sum() / counts.sum() == pytest.approx(1.0)
