"""Touching objects are parted one by one as a watershed of the whole image parts them, whatever the windows."""

import logging

import numpy as np
import pytest
import scipy.ndimage
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from pipeline import watershed as stage
from pipeline.components import find_parts, unite_objects
from pipeline.config import MaskConfig
from pipeline.instances import Lookup, mask_images
from pipeline.watershed import split, split_objects

NECK = 0.85


def random_prediction(generator, shape, *, classes=1, sigma=3.0, step=None):
    """Smooth random probabilities; with ``step`` they level off, so that many depths are equal."""
    fields = scipy.ndimage.gaussian_filter(generator.random((classes + 1, *shape)), (0, sigma, sigma))
    scores = np.exp(20 * (fields - fields.mean()) / fields.std() / 10)
    probabilities = scores / scores.sum(axis=0)
    if step:
        probabilities = np.round(probabilities / step) * step
    return probabilities.astype(np.float16), probabilities.argmax(axis=0).astype(np.uint8)


def split_the_whole(labels, probabilities, neck=NECK):
    """The oracle: all objects of a class in one landscape, flooded at once by scikit-image; numbered by first pixel."""
    parts, count = np.zeros(labels.shape, np.int64), 0
    for kind in range(1, len(probabilities)):
        inside = labels == kind
        distance = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        depth = distance * np.clip(probabilities[kind].astype(np.float64), 0.5, 1)
        markers = np.zeros(labels.shape, np.int64)
        objects = label(inside, connectivity=1)
        for number in range(1, objects.max() + 1):  # a marker belongs to one object
            own = np.where(objects == number, depth, 0)
            maxima = local_maxima(reconstruction(own * neck, own)) & (objects == number)
            markers += np.where(maxima, label(maxima) + markers.max(), 0)
        landscape = -depth
        landscape[markers > 0] = np.arange(-np.count_nonzero(markers), 0) - depth.max(initial=0)
        flooded = watershed(landscape, markers, mask=inside)
        parts[inside] = flooded[inside] + count
        count = parts.max()
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    first[0 if (parts == 0).any() else len(first) :] = -1
    rank = np.argsort(np.argsort(first))
    return rank[inverse].reshape(parts.shape) + (0 if (parts == 0).any() else 1)


def split_by_window(labels, probabilities, folder, window_px, block_px=(16, 16)):
    parts = find_parts(labels, scratch=folder, block_px=block_px)
    numbers, table = unite_objects(parts, parts.table["class"])
    objects = Lookup(parts.numbers, numbers.astype(np.uint32))
    found = split_objects(objects, table, probabilities, neck=NECK, scratch=folder, window_px=window_px)
    order = np.argsort(np.argsort(np.where(found.firsts < 0, -1, found.firsts), kind="stable"), kind="stable")
    return (order - np.count_nonzero(found.firsts < 0) + 1).clip(0)[found[:]]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    classes=st.integers(1, 2),
    step=st.sampled_from([None, 0.1]),
    window_px=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_windows_equal_the_whole(seed, rows, columns, classes, step, window_px, tmp_path_factory):
    generator = np.random.default_rng(seed)
    probabilities, labels = random_prediction(generator, (rows, columns), classes=classes, step=step)
    found = split_by_window(labels, probabilities, tmp_path_factory.mktemp("scratch"), window_px)
    np.testing.assert_array_equal(found, split_the_whole(labels, probabilities))


@pytest.mark.parametrize("step", [None, 0.1])
def test_a_whole_mask_equals_the_whole_image(tmp_path, generator, step):
    """Larger than a block of rows, with objects across the borders of blocks and windows."""
    probabilities, labels = random_prediction(generator, (1300, 700), sigma=5, step=step)
    config = MaskConfig(instances="watershed")
    images = mask_images(labels, probabilities, config, pixel_um2=None, scratch=tmp_path)
    expected = split_the_whole(labels, probabilities)
    assert expected.max() > 1.2 * skimage.measure.label(labels, connectivity=1).max()
    np.testing.assert_array_equal(images["instances"][:], expected)
    np.testing.assert_array_equal(images["classes"][:], labels)


def disks(distance_px, radius_px=10.0):
    row, column = np.ogrid[-20:21, -20 : 21 + distance_px]
    return (row**2 + column**2 <= radius_px**2) | (row**2 + (column - distance_px) ** 2 <= radius_px**2)


@pytest.mark.parametrize(("distance_px", "parts"), [(0, 1), (4, 1), (8, 1), (14, 2), (18, 2)])
def test_two_disks_come_apart_where_the_neck_is_narrow(distance_px, parts):
    """Half the neck is sqrt(10² - (distance / 2)²) px: 9.2 at a distance of 8, 7.1 at 14, of a depth of 10."""
    inside = disks(distance_px)
    found = split(inside, np.ones(inside.shape, np.float16), neck=NECK)
    assert found.max() == parts
    np.testing.assert_array_equal(found > 0, inside)


def test_probabilities_part_what_the_outline_does_not_show():
    inside = np.ones((11, 30), bool)
    probability = np.ones(inside.shape)
    assert split(inside, probability, neck=NECK).max() == 1
    probability[:, 15] = 0.6
    found = split(inside, probability, neck=NECK)
    assert found.max() == 2
    assert (found[:, :15] == 1).all()
    assert (found[:, 16:] == 2).all()


def test_a_filled_hole_does_not_part_its_object():
    inside = disks(0)
    probability = np.ones(inside.shape)
    probability[18:23, 18:23] = 0
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
