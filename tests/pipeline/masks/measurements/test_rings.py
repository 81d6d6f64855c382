"""Rings around objects: each pixel belongs to the nearest object, and blocks equal the whole, also in ties."""

import numpy as np
import pytest

from pipeline.masks.measurements.rings import _rings_in, measure_rings
from pipeline.masks.object_table import measure_objects
from tests.support.masks import blobs, numbered
from tests.support.measurements import slide_of

BLOCKS = [(7, 11), (64, 30), (1, 200)]
SIZES = [(1.0, 1.0), (0.5, 0.5), (0.25, 0.4)]


def whole(ids, width_um, pixel_size_um):
    return _rings_in(ids, width_um, pixel_size_um, (slice(0, ids.shape[0]), slice(0, ids.shape[1])))


@pytest.mark.parametrize("pixel_size_um", SIZES)
def test_a_ring_is_what_is_near_an_object_and_nearest_to_it(generator, pixel_size_um):
    for sigma in (0.5, 1, 2, 4):
        ids = numbered(blobs(generator, (23, 31), sigma) == 2)
        width_um = generator.choice([0.3, 1.0, 2.5, 40.0])
        rows, columns = np.nonzero(ids)
        places = np.stack([rows, columns], axis=1) * pixel_size_um
        ring = whole(ids, width_um, pixel_size_um)
        for place in np.ndindex(ids.shape):
            distances = np.hypot(*(places - np.multiply(place, pixel_size_um)).T)
            nearest = ids[rows, columns][np.isclose(distances, distances.min(), rtol=1e-12)]
            inside = ids[place] == 0 and distances.min() <= width_um * (1 + 1e-9)
            assert ring[place] in (nearest if inside else [0])


def test_sides_that_differ_by_rounding_change_no_ring(generator):
    """A mask can state them so; then each of two objects that are as near would get other pixels."""
    ids = numbered(blobs(generator, (60, 80), 1) == 2)
    np.testing.assert_array_equal(whole(ids, 2.0, (0.499, 0.499)), whole(ids, 2.0, (0.499 - 6e-17, 0.499)))


@pytest.mark.parametrize("block_px", BLOCKS)
@pytest.mark.parametrize("pixel_size_um", SIZES)
def test_blocks_measure_what_the_whole_does(generator, block_px, pixel_size_um):
    for sigma in np.linspace(0.5, 3, 6):
        ids = numbered(blobs(generator, (40, 53), sigma) == 2)
        pixels = generator.integers(0, 60_000, (2, *ids.shape)).astype(np.uint16)
        objects = measure_objects(ids, (ids > 0).astype(np.uint8))
        width_um = float(generator.choice([0.3, 1.0, 2.5]))
        found = measure_rings(
            ids,
            objects,
            slide_of(pixels),
            width_um=width_um,
            pixel_size_um=pixel_size_um,
            stains=False,
            block_px=block_px,
        )
        ring = whole(ids, width_um, pixel_size_um)
        count = len(objects.ids) + 1
        np.testing.assert_array_equal(found.areas_px, np.bincount(ring.ravel(), minlength=count)[1:])
        for own, plane in zip(found.sums, pixels, strict=True):
            np.testing.assert_array_equal(own, np.bincount(ring.ravel(), plane.ravel(), minlength=count)[1:])


def test_rings_without_a_pixel_size_are_not_known():
    ids = numbered(np.eye(4, dtype=np.uint8))
    objects = measure_objects(ids, np.eye(4, dtype=np.uint8))
    found = measure_rings(
        ids, objects, slide_of(np.ones((2, 4, 4), np.uint8)), width_um=1.0, pixel_size_um=None, stains=False
    )
    assert np.isnan(found.areas_px).all()
    assert np.isnan(found.sums).all()
    assert found.sums.shape == (2, 4)
