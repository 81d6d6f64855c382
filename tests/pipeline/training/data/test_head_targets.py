"""Targets of heads are those of each whole object by SciPy, whatever the blocks, contacts, holes and classes."""

import numpy as np
import pytest
import scipy.ndimage
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings.networks import AugmentationConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.slide import open_slide
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.head_targets import boundaries, distances, head_targets
from pipeline.training.data.patches import RandomPatches
from pipeline.training.data.weight_map_files import objects_of, write_maps
from tests.support.training import STILL

INSTANCES = LabelConfig(classes=["background", "cell"], kind="instances")


def of_each_object(ids):
    """SciPy's distance transform of each object in the whole image, divided by its maximum."""
    expected = np.zeros(ids.shape)
    for number in set(np.unique(ids)) - {0}:
        inside = ids == number
        depth = scipy.ndimage.distance_transform_edt(inside)
        expected[inside] = (depth / depth.max())[inside]
    return expected


def cells(generator, shape=(90, 70), count=30):
    """Ellipses over each other: touching, cut by each other and by the border, with holes and one-pixel lines."""
    ids = np.zeros(shape, np.int32)
    rows, columns = np.indices(shape)
    for number in range(1, count):
        (row, column), (height, width) = generator.uniform(0, shape), generator.uniform(2, 20, 2)
        ids[((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1] = 7 * number
    ids[10, 5:60], ids[20:80, 33] = 501, 502
    ids[generator.random(shape) < 0.01] = 0
    return ids


@pytest.mark.parametrize("block_px", [(1024, 1024), (16, 16), (31, 7)])
def test_distances_are_those_of_whole_objects(generator, tmp_path, block_px):
    ids = cells(generator)
    found = distances(ids, scratch=tmp_path, block_px=block_px)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, of_each_object(ids), rtol=0, atol=1e-6)


def test_by_hand(tmp_path):
    """Two touching objects; the second one is cut by the border of the image, which is no border of it."""
    ids = np.array([[0, 1, 1, 1, 2, 2, 2]])
    found = distances(ids, scratch=tmp_path)
    np.testing.assert_allclose(found, [[0, 1 / 2, 1, 1 / 2, 1 / 3, 2 / 3, 1]], rtol=1e-6)
    assert boundaries(ids)[:].tolist() == [[0, 0, 1, 1, 1, 1, 0]]
    assert boundaries(np.array([[1, 1, 0, 3, 0, 0, 2]]))[:].tolist() == [[0, 1, 0, 1, 0, 0, 0]]
    np.testing.assert_array_equal(distances(np.full((3, 4), 9), scratch=tmp_path), 1)
    np.testing.assert_array_equal(distances(np.zeros((3, 4), np.uint8), scratch=tmp_path), 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_boundaries_do_not_depend_on_the_region_that_is_read(seed, rows, columns):
    ids = cells(np.random.default_rng(seed), (40, 40), count=12)
    padded = np.pad(ids, 2)
    views = [padded[row : row + 40, column : column + 40] for row in range(5) for column in range(5)]
    expected = (ids > 0) & np.any([(view > 0) & (view != ids) for view in views], axis=0)
    found = boundaries(ids)
    np.testing.assert_array_equal(found[:rows, :columns], expected[:rows, :columns])
    np.testing.assert_array_equal(found[rows:, columns:], expected[rows:, columns:])


def test_a_very_large_object_is_transformed_at_every_nth_pixel(tmp_path):
    rows, columns = np.indices((400, 300))
    ids = 5 * (((rows - 180) / 170) ** 2 + ((columns - 160) / 130) ** 2 < 1)
    found = distances(ids, scratch=tmp_path, block_px=(64, 64), largest_px=300 * 340 // 9)
    np.testing.assert_array_equal(found[ids == 0], 0)
    np.testing.assert_allclose(found, of_each_object(ids), rtol=0, atol=8 / 130)


@pytest.mark.parametrize("kind", ["instances", "classes", "binary"])
def test_objects_are_ids_or_components_of_each_class_without_unannotated_pixels(generator, tmp_path, kind):
    """Components of two classes that touch are two objects."""
    ids = cells(generator)
    if kind == "instances":
        config, labels = INSTANCES.model_copy(update={"ignored": 501}), ids.astype(np.uint16)
        expected = np.where(ids == 501, 0, ids)
    elif kind == "classes":
        config = LabelConfig(classes=["background", "a", "b"], kind="classes", values=[0, 1, 2], ignored=3)
        labels = (ids % 4).astype(np.uint8)
        parts = [scipy.ndimage.label(labels == value)[0] for value in (1, 2)]
        expected = np.where(parts[1] > 0, parts[1] + parts[0].max(), parts[0])
    else:
        config, labels = INSTANCES, (255 * (ids > 0)).astype(np.uint8)
        expected = scipy.ndimage.label(labels)[0]
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with open_slide(tmp_path / "labels.tif", memory_mb=100) as slide:
        (found,) = head_targets(objects_of(slide, config, scratch=tmp_path), ["distance"], scratch=tmp_path)
    np.testing.assert_allclose(found, of_each_object(expected), rtol=0, atol=1e-6)


def test_patches_hold_the_distances_of_whole_objects(generator, tmp_path):
    """The image is the expected map, so that a patch shows its own target."""
    ids = cells(generator)
    expected = of_each_object(ids).astype(np.float32)
    maps = np.stack([np.ones_like(expected), distances(ids, scratch=tmp_path)])
    annotated = Annotated(name="", image=expected[None], classes=(ids > 0).astype(np.uint8), maps=maps)
    for config, tolerance in ((STILL, 1e-6), (AugmentationConfig(**STILL.model_dump() | {"rotate_deg": 90.0}), 1e-5)):
        drawn = RandomPatches([annotated], patch_px=32, config=config, seed=0)
        for image, _, (weights, distance) in (drawn[index] for index in range(10)):
            torch.testing.assert_close(distance, image[0], rtol=0, atol=tolerance)
            torch.testing.assert_close(weights, torch.ones(32, 32))


def test_the_file_of_an_image_has_its_weights_and_the_target_of_each_head(generator, tmp_path):
    ids = cells(generator, (300, 280))
    weights = generator.random(ids.shape).astype(np.float16)
    targets = head_targets(ids, ["distance", "boundary"], scratch=tmp_path)
    write_maps(tmp_path / "maps.tif", (weights[top : top + 256] for top in (0, 256)), targets, ids.shape, {})
    with open_slide(tmp_path / "maps.tif", memory_mb=100) as maps:
        found = maps.read_all()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack([weights.astype(np.float32), *(target[:] for target in targets)]))
