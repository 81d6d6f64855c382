"""Splitting objects apart from each other equals a watershed of the whole image, whatever the windows and threads."""

import logging

import dask
import numpy as np
import pytest
import scipy.ndimage
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from pipeline.base.arrays import lookup
from pipeline.masks import watershed as stage
from pipeline.masks.components import find_parts, unite_objects
from pipeline.masks.instances import mask_images
from pipeline.masks.watershed import split, split_objects
from pipeline.settings.masks import MaskConfig
from tests.support.masks import NECK, by_first_pixel, split_the_whole


def random_prediction(generator, shape, *, classes=1, sigma=3.0, step=None):
    """Smooth random probabilities; with ``step`` they level off, so that many depths are equal."""
    fields = scipy.ndimage.gaussian_filter(generator.random((classes + 1, *shape)), (0, sigma, sigma))
    scores = np.exp(20 * (fields - fields.mean()) / fields.std() / 10)
    probabilities = scores / scores.sum(axis=0)
    if step:
        probabilities = np.round(probabilities / step) * step
    return probabilities.astype(np.float16), probabilities.argmax(axis=0).astype(np.uint8)


def split_by_window(labels, probabilities, folder, window_px, block_px=(16, 16)):
    parts = find_parts(labels, scratch=folder, block_px=block_px)
    numbers, table = unite_objects(parts, parts.table["class"])
    objects = lookup(parts.numbers, numbers.astype(np.uint32))
    found, _ = split_objects(objects, table, probabilities, neck=NECK, scratch=folder, window_px=window_px)
    return by_first_pixel(found[:])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    classes=st.integers(1, 2),
    step=st.sampled_from([None, 0.1]),
    window_px=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    threads=st.sampled_from([1, 2, 4]),
)
def test_windows_equal_the_whole(seed, rows, columns, classes, step, window_px, threads, tmp_path_factory):
    generator = np.random.default_rng(seed)
    probabilities, labels = random_prediction(generator, (rows, columns), classes=classes, step=step)
    with dask.config.set(num_workers=threads):
        found = split_by_window(labels, probabilities, tmp_path_factory.mktemp("scratch"), window_px)
    np.testing.assert_array_equal(found, split_the_whole(labels, probabilities))
    assert label(found, connectivity=1).max() == found.max()  # as outlines need it, each part is 4-connected


@pytest.mark.parametrize("step", [None, 0.1])
def test_a_whole_mask_equals_the_whole_image(tmp_path, generator, step):
    """Higher than a block and a window, with objects across their borders."""
    probabilities, labels = random_prediction(generator, (600, 500), sigma=5, step=step)
    config = MaskConfig(instances="watershed")
    images = mask_images(labels, probabilities, config, pixel_um2=None, scratch=tmp_path)
    expected = split_the_whole(labels, probabilities)
    assert expected.max() > 1.2 * skimage.measure.label(labels, connectivity=1).max()
    np.testing.assert_array_equal(images["instances"][:], expected)
    np.testing.assert_array_equal(images["classes"][:], labels)


@pytest.mark.parametrize(("together_px", "row_px"), [(1, 1), (500, 60), (2**21, 2048)])
def test_objects_that_are_split_together_are_split_as_alone(tmp_path, monkeypatch, generator, together_px, row_px):
    monkeypatch.setattr(stage, "_TOGETHER_PX", together_px)
    monkeypatch.setattr(stage, "_ROW_PX", row_px)
    probabilities, labels = random_prediction(generator, (150, 140), classes=2, step=0.1)
    found = split_by_window(labels, probabilities, tmp_path, (100, 100))
    np.testing.assert_array_equal(found, split_the_whole(labels, probabilities))


def disks(distance_px, radius_px=10.0):
    row, column = np.ogrid[-20:21, -20 : 21 + distance_px]
    return (row**2 + column**2 <= radius_px**2) | (row**2 + (column - distance_px) ** 2 <= radius_px**2)


@pytest.mark.parametrize(("distance_px", "parts"), [(0, 1), (4, 1), (8, 1), (14, 2), (18, 2)])
def test_two_disks_are_split_if_the_neck_is_narrow(distance_px, parts):
    """Half the neck is sqrt(10² - (distance / 2)²) px: 9.2 at a distance of 8, 7.1 at 14, of a depth of 10."""
    inside = disks(distance_px)
    found = split(inside, np.ones(inside.shape, np.float16), neck=NECK)
    assert found.max() == parts
    np.testing.assert_array_equal(found > 0, inside)


def test_low_probabilities_split_an_object_without_a_neck():
    inside = np.ones((11, 30), bool)
    probability = np.ones(inside.shape)
    assert split(inside, probability, neck=NECK).max() == 1
    probability[:, 15] = 0.6
    found = split(inside, probability, neck=NECK)
    assert found.max() == 2
    assert (found[:, :15] == 1).all()
    assert (found[:, 16:] == 2).all()


def test_equal_neighbours_share_a_plateau_evenly():
    """A bar that levels off at probability 1 with two dark lines: each pixel goes to the marker on its side."""
    probability = np.ones((9, 31))
    probability[:, 10] = probability[:, 20] = 0.5
    found = split(np.ones((9, 31), bool), probability, neck=NECK)
    assert [np.unique(found[:, part]).tolist() for part in np.s_[0:10, 11:20, 21:31]] == [[1], [2], [3]]


def test_a_small_filled_hole_does_not_split_its_object():
    inside = disks(0)
    probability = np.ones(inside.shape)
    probability[19:22, 19:22] = 0
    assert split(inside, probability, neck=NECK).max() == 1


def test_objects_above_the_limit_stay_whole_and_the_log_says_so(tmp_path, monkeypatch, caplog):
    labels = disks(18).astype(np.uint8)
    probabilities = np.stack([1 - labels, labels]).astype(np.float16)
    assert split_by_window(labels, probabilities, tmp_path / "a", (512, 8192)).max() == 2
    assert split_by_window(labels, probabilities, tmp_path / "b", (8, 8)).max() == 2
    monkeypatch.setattr(stage, "LARGEST_PX", 100)
    with caplog.at_level(logging.WARNING):
        assert split_by_window(labels, probabilities, tmp_path / "c", (8, 8)).max() == 1
    assert "1 objects are left whole" in caplog.text
