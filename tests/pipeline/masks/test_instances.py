"""Objects found and cleaned by block, in any number of threads, are those of the whole image, numbers included."""

import tracemalloc

import dask
import numpy as np
import pytest
import scipy.ndimage
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import remove_small_holes, remove_small_objects

from pipeline.base.arrays import LazyArray, lookup
from pipeline.base.errors import SlidemillError
from pipeline.masks.components import clean_classes, find_objects, find_parts
from pipeline.masks.instances import mask_images, with_areas
from pipeline.masks.ome_tiff import write_label_images
from pipeline.settings.masks import MaskConfig
from tests.support.masks import numbered

small_maps = arrays(np.uint8, st.tuples(st.integers(1, 15), st.integers(1, 15)), elements=st.integers(0, 2))
two_classes = arrays(np.uint8, st.tuples(st.integers(1, 15), st.integers(1, 15)), elements=st.integers(0, 1))
blocks = st.tuples(st.integers(3, 16), st.integers(3, 16))
areas = st.integers(0, 12)
threads = st.sampled_from([1, 2, 4])


def random_blobs(generator, shape=(700, 650), classes=1, sigma=4):
    fields = scipy.ndimage.gaussian_filter(generator.random((classes + 1, *shape)), (0, sigma, sigma))
    return fields.argmax(axis=0).astype(np.uint8)


def assert_found_as_in_the_whole(labels, folder, block_px, threads=2):
    with dask.config.set(num_workers=threads):
        found, count = find_objects(labels, scratch=folder, block_px=block_px)
    expected = numbered(labels)
    np.testing.assert_array_equal(found[:], expected)
    assert found.dtype == np.uint32
    assert count == expected.max()


@settings(max_examples=50)
@given(labels=small_maps, block_px=blocks, threads=threads)
def test_blocks_equal_the_whole(labels, block_px, threads, tmp_path_factory):
    assert_found_as_in_the_whole(labels, tmp_path_factory.mktemp("scratch"), block_px, threads)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("block_px", [(50, 650), (64, 100), (700, 90), (600, 600), (512, 8192)])
def test_blobs_across_many_blocks(tmp_path, generator, block_px, threads):
    assert_found_as_in_the_whole(random_blobs(generator, classes=2), tmp_path, block_px, threads)


def test_a_spiral_through_all_blocks_is_one_object(tmp_path):
    labels = np.zeros((9, 9), np.uint8)
    for ring in range(0, 5, 2):
        labels[ring : 9 - ring, ring] = labels[ring, ring : 9 - ring] = labels[8 - ring, ring : 9 - ring] = 1
        labels[ring : 9 - ring, 8 - ring] = 1
    labels[1, 1] = labels[2, 1] = labels[3, 3] = labels[4, 3] = 1
    assert_found_as_in_the_whole(labels, tmp_path, (1, 3))


def cleaned(labels, folder, block_px, smallest, largest):
    parts = find_parts(labels, scratch=folder, block_px=block_px)
    return lookup(parts.numbers, clean_classes(parts, min_object_px=smallest, max_hole_px=largest))[:]


def cleaned_by_skimage(labels, smallest, largest):
    """Clean one class, with so much background around it that holes at the edge are not filled."""
    kept = remove_small_objects(labels > 0, max_size=smallest - 1, connectivity=1)
    filled = remove_small_holes(np.pad(kept, largest + 1), max_size=largest, connectivity=1)
    inner = tuple(slice(largest + 1, largest + 1 + length) for length in labels.shape)
    return filled[inner].astype(np.uint8)


@settings(max_examples=50)
@given(labels=two_classes, block_px=blocks, smallest=areas, largest=areas, threads=threads)
def test_cleaning_by_blocks_equals_the_whole(labels, block_px, smallest, largest, threads, tmp_path_factory):
    with dask.config.set(num_workers=threads):
        found = cleaned(labels, tmp_path_factory.mktemp("scratch"), block_px, smallest, largest)
    np.testing.assert_array_equal(found, cleaned_by_skimage(labels, smallest, largest))


@pytest.mark.parametrize("block_px", [(50, 650), (64, 100), (512, 8192)])
def test_large_objects_and_holes_across_many_blocks(tmp_path, generator, block_px):
    labels = random_blobs(generator)
    expected = cleaned_by_skimage(labels, 300, 200)
    assert (expected < labels).any()
    assert (expected > labels).any()
    np.testing.assert_array_equal(cleaned(labels, tmp_path, block_px, 300, 200), expected)


def test_a_hole_is_enclosed_by_one_class_and_off_the_edge(tmp_path):
    labels = np.array(
        [
            [1, 1, 1, 1, 1, 2, 2, 2, 0],
            [1, 0, 1, 0, 2, 2, 0, 2, 2],
            [1, 1, 1, 1, 1, 2, 2, 2, 2],
        ],
        np.uint8,
    )
    expected = labels.copy()
    expected[1, 1], expected[1, 6] = 1, 2  # (1, 3) is between both classes, (0, 8) at the edge
    np.testing.assert_array_equal(cleaned(labels, tmp_path, (2, 4), 0, 1), expected)


def test_a_small_object_in_a_hole_is_removed_before_the_hole_is_filled(tmp_path):
    labels = np.ones((5, 5), np.uint8)
    labels[1:4, 1:4] = 0
    labels[2, 2] = 2
    assert (cleaned(labels, tmp_path, (2, 2), 2, 9) == 1).all()


def test_areas_are_in_um2_and_objects_follow_the_cleaned_classes(tmp_path):
    labels = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0]], np.uint8)
    config = MaskConfig(instances="components", min_object_um2=0.5, max_hole_um2=0.25)  # 2 px and 1 px
    images = mask_images(labels, None, config, pixel_um2=0.25, scratch=tmp_path)
    expected = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 2, 0], [2, 2, 2, 0], [2, 2, 2, 0]])
    np.testing.assert_array_equal(images["instances"][:], expected)
    np.testing.assert_array_equal(images["classes"][:], expected > 0)
    assert (images["classes"].dtype, images["instances"].dtype) == (np.uint8, np.uint32)


@pytest.mark.parametrize(("instances", "names"), [("none", ["classes"]), ("components", ["classes", "instances"])])
def test_a_mask_has_the_configured_images(tmp_path, generator, instances, names):
    labels = random_blobs(generator, (40, 50), classes=3)
    images = mask_images(labels, None, MaskConfig(instances=instances), pixel_um2=None, scratch=tmp_path)
    assert list(images) == names
    np.testing.assert_array_equal(images["classes"][:], labels)


def stripes(rows):
    """A long class map without pixels in memory: an object of 400 rows in every 512."""

    def read(down, across):
        in_object = np.arange(down.start, down.stop)[:, None] % 512 < 400
        return np.repeat(in_object, across.stop - across.start, axis=1).astype(np.uint8)

    return LazyArray((rows, 300), np.dtype(np.uint8), read)


def peak_bytes(rows, folder):
    config = MaskConfig(instances="components", min_object_um2=1.0)
    folder.mkdir()
    tracemalloc.start()
    images = mask_images(stripes(rows), None, config, pixel_um2=0.25, scratch=folder / "scratch")
    write_label_images(folder / "mask.ome.tiff", images, pixel_size_um=(0.5, 0.5), annotations={})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tifffile.imread(folder / "mask.ome.tiff", series=1).max() == rows // 512
    return peak


def test_memory_grows_with_threads_and_blocks_but_not_with_the_number_of_rows(tmp_path):
    with dask.config.set(num_workers=1):
        least = peak_bytes(512 * 8, tmp_path / "short")
    for threads, blocks_at_a_time in ((1, 1), (2, 3), (4, 5)):  # while threads work, one block is in use
        with dask.config.set(num_workers=threads):
            assert peak_bytes(512 * 40, tmp_path / str(threads)) < 1.2 * blocks_at_a_time * least


@pytest.mark.parametrize(
    ("settings_in_px", "settings_in_um2"),
    [({"min_object_px": 3}, {"min_object_um2": 0.75}), ({"max_hole_px": 2}, {"max_hole_um2": 0.5})],
)
def test_areas_in_pixels_are_those_in_um2(tmp_path, generator, settings_in_px, settings_in_um2):
    labels = random_blobs(generator, shape=(60, 70), sigma=0.7)
    made = [
        mask_images(labels, None, MaskConfig(instances="components", **one), pixel_um2=um2, scratch=tmp_path / name)[
            "classes"
        ][:]
        for one, um2, name in ((settings_in_px, None, "px"), (settings_in_um2, 0.25, "um"))
    ]
    np.testing.assert_array_equal(*made)
    assert (made[0] != labels).any()


def test_auto_is_half_of_a_small_annotated_object():
    assert with_areas(MaskConfig(min_object_px="auto"), 80.0).min_object_px == 40.0
    assert with_areas(MaskConfig(min_object_px=3.0), None).min_object_px == 3.0
    with pytest.raises(SlidemillError, match="min_object_px: 'auto' needs a network whose model.json describes"):
        with_areas(MaskConfig(min_object_px="auto"), None)
