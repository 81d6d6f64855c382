"""Boundaries, hulls and intensities of objects read block by block equal those of scikit-image for the whole image."""

import dask
import numpy as np
import pytest
import scipy.ndimage
import skimage.color
import skimage.io
import skimage.measure
from scipy.spatial import ConvexHull

from pipeline.masks.measurements import parts
from pipeline.masks.measurements.pixels import measure_pixels
from pipeline.masks.object_table import measure_objects
from tests.support.masks import blobs, numbered
from tests.support.measurements import slide_of

ALL = ["shape", "intensity"]
BLOCKS = [(7, 11), (64, 30), (1, 200), (512, 8192)]


def measured(ids, pixels, groups=ALL, block_px=(512, 8192)):
    table = measure_objects(ids, (ids > 0).astype(np.uint8), block_px=block_px)
    return measure_pixels(ids, table, slide_of(pixels), groups, block_px=block_px)


def expected_intensities(region):
    """By the pixels of an object: (channels,) arrays by statistic."""
    values = region.image_intensity[region.image].astype(np.float64)
    edge = region.image & ~scipy.ndimage.binary_erosion(region.image)
    return {
        "mean": region.intensity_mean,
        "sd": region.intensity_std,
        "min": region.intensity_min,
        "max": region.intensity_max,
        "integrated": values.sum(axis=0),
        "edge_mean": region.image_intensity[edge].mean(axis=0),
        "median": np.median(values, axis=0),
    }


def least_width(image):
    """Smallest extent over the directions across the sides of the hull of the middles of the sides of pixels."""
    rows, columns = np.nonzero(image)
    places = np.stack([rows, columns], axis=1)
    places = np.concatenate([places + step for step in ((0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0))])
    hull = ConvexHull(places)
    return min(np.ptp(places @ normal[:2]) for normal in hull.equations)


def assert_equal_to_regionprops(found, ids, pixels):
    expected = skimage.measure.regionprops(ids.astype(np.int64), np.moveaxis(pixels, 0, -1).astype(np.float64))
    shapes = {
        "perimeter_crofton": found.perimeters_px,
        "euler_number": 1 - found.holes,
        "area_convex": found.hulls[0],
        "feret_diameter_max": found.hulls[1],
    }
    for name, values in shapes.items():
        np.testing.assert_allclose(values, [region[name] for region in expected], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(found.hulls[2], [least_width(region.image_convex) for region in expected], rtol=1e-9)
    statistics = [expected_intensities(region) for region in expected]
    assert set(found.intensities) == set(statistics[0])
    for name, values in found.intensities.items():
        np.testing.assert_allclose(
            values.T, [one[name] for one in statistics], rtol=1e-9, atol=1e-9 * pixels.max(), err_msg=name
        )


@pytest.mark.parametrize("block_px", BLOCKS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "bool"])
def test_objects_across_many_blocks_measure_as_in_the_whole(generator, block_px, dtype):
    """Ten random images a case, 200 together, from specks to labyrinths with holes."""
    for sigma in np.linspace(0.5, 4, 10):
        ids = numbered(blobs(generator, generator.integers(10, 40, 2), sigma))
        pixels = (generator.random((2, *ids.shape)) * 60_000 - 100 * (dtype == "int32")).astype(dtype)
        assert_equal_to_regionprops(measured(ids, pixels, block_px=block_px), ids, pixels)


REAL = ["dsb2018", "phase_contrast"]


@pytest.mark.parametrize("folder", REAL)
def test_real_objects_measure_as_in_the_whole(data, folder):
    for path in sorted((data / folder / "labels").iterdir())[:3]:
        labels = skimage.io.imread(path)
        ids = numbered(labels)
        pixels = np.atleast_3d(skimage.io.imread(data / folder / "images" / path.name))
        pixels = np.moveaxis(pixels, -1, 0)
        assert_equal_to_regionprops(measured(ids, pixels, block_px=(100, 130)), ids, pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_stains_are_those_of_scikit_image(generator, dtype):
    ids = numbered(blobs(generator, (80, 90)))
    pixels = generator.integers(0, np.iinfo(dtype).max, (4, 80, 90), endpoint=True).astype(dtype)
    pixels[1:, :10] = 0  # black: the logarithm has a limit
    stains = np.moveaxis(skimage.color.rgb2hed(np.moveaxis(pixels[1:], 0, -1)), -1, 0)
    found = measured(ids, pixels, [*ALL, "stains"], block_px=(30, 40))
    assert_equal_to_regionprops(found, ids, np.concatenate([pixels[:1], stains]))


def disc(radius):
    down, across = np.mgrid[-radius - 2 : radius + 3, -radius - 2 : radius + 3] + 0.5
    return (down**2 + across**2 <= radius**2).astype(np.uint32)


def test_a_disc_of_40_px_is_round():
    ids = disc(20)
    found = measured(ids, np.zeros((1, *ids.shape), np.uint8))
    assert 4 * np.pi * ids.sum() / found.perimeters_px**2 == pytest.approx(1, abs=0.02)
    assert found.hulls[2] == pytest.approx([40])


def test_a_square_by_hand():
    """3 x 3 px with a hole, in a corner of the image."""
    ids = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0]], np.uint32)
    found = measured(ids, np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
    # Lines along rows and columns enter it 2 * (1 + 2 + 1) times, diagonals 2 * (5 + 1) times.
    assert found.perimeters_px == pytest.approx([np.pi / 4 * (8 + 12 / 2**0.5)])
    assert found.holes.tolist() == [1]
    assert found.hulls[:, 0] == pytest.approx([9, 13**0.5, 3])
    values = {name: own.item() for name, own in found.intensities.items()}
    assert values["median"] == values["mean"] == values["edge_mean"] == 5
    assert (values["min"], values["max"], values["integrated"]) == (0, 10, 40)
    assert values["sd"] == pytest.approx(np.sqrt(np.mean(np.square([-5, -4, -3, -1, 1, 3, 4, 5]))))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_any_number_of_threads_measures_the_same_bits(generator, dtype):
    ids = numbered(blobs(generator, (150, 170)))
    pixels = (generator.random((2, 150, 170)) * 60_000).astype(dtype)
    found = []
    for count in (1, 2, 4):
        with dask.config.set(num_workers=count):
            one = measured(ids, pixels, block_px=(20, 30))
        found.append([one.perimeters_px, one.holes, one.hulls, *one.intensities.values()])
    for first, *others in zip(*found, strict=True):
        assert all(first.tobytes() == other.tobytes() for other in others)


@pytest.mark.parametrize("block_px", BLOCKS[:2])
def test_the_median_of_a_large_object_is_that_of_a_choice_which_blocks_do_not_change(generator, monkeypatch, block_px):
    monkeypatch.setattr(parts, "MOST_RANKED", 2000)
    ids = np.ones((150, 160), np.uint32)
    ids[:, 100] = 0
    ids = numbered(ids)
    pixels = np.cumsum(generator.integers(0, 9, (1, 150, 160)), axis=2)  # a gradient: an uneven choice would show
    whole, blocked = (measured(ids, pixels, block_px=one).intensities["median"] for one in ((512, 8192), block_px))
    np.testing.assert_array_equal(whole, blocked)
    exact = [np.median(pixels[0, ids == number]) for number in (1, 2)]
    np.testing.assert_allclose(whole[0], exact, rtol=0.05)


def test_what_lies_on_glass_is_not_read():
    ids = np.zeros((100, 100), np.uint32)
    ids[45:55, 45:55] = 1

    class Pixels:
        shape, dtype = (1, 100, 100), np.dtype(np.uint8)

        def __getitem__(self, key):
            assert key[1:] == (slice(40, 60), slice(40, 60))
            return np.full((1, 20, 20), 7, np.uint8)

    found = measured(ids, Pixels(), block_px=(20, 20))
    assert found.intensities["mean"].tolist() == found.intensities["edge_mean"].tolist() == [[7.0]]


def test_a_slide_without_objects_has_no_measurements():
    found = measured(np.zeros((20, 30), np.uint32), np.zeros((2, 20, 30), np.uint8))
    assert len(found.perimeters_px) == len(found.holes) == 0
    assert {values.shape for values in found.intensities.values()} == {(2, 0)}
