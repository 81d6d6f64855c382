"""Label images have the meaning of the configuration, or are refused with the value that does not fit."""

import contextlib
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import skimage.measure
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.base.errors import SlideError
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import class_map, is_binary_mask, separate_touching, training_objects, warnings_of
from pipeline.slides.slide import open_plane

INSTANCES = LabelConfig(classes=["background", "nucleus"], kind="instances")
MEMBRANES = LabelConfig(classes=["membrane", "cell"], kind="classes", values=[0, 255])
HERE = Path("labels.tif")

few_objects = arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))


def test_ids_become_the_second_class_and_values_their_classes():
    labels = np.array([[0, 7], [65_000, 0]], dtype=np.uint16)
    assert class_map(labels, INSTANCES, source=HERE).tolist() == [[0, 1], [1, 0]]
    assert class_map(np.array([[255, 0]], dtype=np.uint8), MEMBRANES, source=HERE).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("labels", "config", "message"),
    [
        (np.array([[0.5]]), INSTANCES, "labels.tif: labels must be integers, this file has float64 pixels"),
        (np.array([[-1]]), INSTANCES, "object id -1 is below 0 .background."),
        (np.array([[0, 7, 255]]), MEMBRANES, "of value 7 .1 px. belong to no class .0 = membrane, 255 = cell.; fix"),
    ],
)
def test_labels_that_do_not_fit_the_configuration_are_refused(labels, config, message):
    with pytest.raises(SlideError, match=message):
        class_map(labels, config, source=HERE)


TWO = np.zeros((40, 60), np.uint8)
TWO[2:10, 2:10] = TWO[30:38, 40:48] = 1
BINARY = "one value marks all objects, so each connected part is taken for an object"


@contextlib.contextmanager
def opened(path, pixels):
    tifffile.imwrite(path, pixels)
    with open_plane(path, memory_mb=100) as labels:
        yield labels


@pytest.mark.parametrize(
    "mask", [TWO, TWO * 255, TWO.astype(np.uint16) * 255, TWO.astype(np.uint16) * 65_535, TWO > 0, TWO.astype(np.int32)]
)
def test_one_value_for_all_objects_is_a_binary_mask(tmp_path, mask):
    with opened(tmp_path / "a.tif", mask) as labels:
        assert is_binary_mask(labels, INSTANCES)
        assert warnings_of(labels, INSTANCES) == [BINARY]
        classes, objects = training_objects(labels.read_all()[0], INSTANCES, source=labels.path)
    np.testing.assert_array_equal(classes, TWO)
    assert sorted(np.unique(objects)) == [0, 1, 2]
    assert len(np.unique(objects[2:10, 2:10])) == len(np.unique(objects[30:38, 40:48])) == 1


def test_ids_are_no_binary_mask(tmp_path):
    two_ids = TWO * (1 + (np.arange(60) > 30)).astype(np.uint8)
    for pixels, config in ((two_ids, INSTANCES), (TWO * 7, INSTANCES), (TWO * 255, MEMBRANES)):
        with opened(tmp_path / "a.tif", pixels) as labels:
            assert not is_binary_mask(labels, config)
            assert BINARY not in warnings_of(labels, config)
    sparse = INSTANCES.model_copy(update={"ignored": 9})
    with opened(tmp_path / "a.tif", np.where(TWO > 0, 255, 9).astype(np.uint8)) as labels:
        assert is_binary_mask(labels, sparse)


@pytest.mark.parametrize("block_px", [(2048, 2048), (16, 16)])
def test_an_object_in_pieces_far_apart_is_named(tmp_path, monkeypatch, block_px):
    """But not one whose pieces may be connected outside of the block that is looked at, nor one with a near speck."""
    monkeypatch.setattr("pipeline.slides.labels._BLOCK_PX", block_px)
    ids = np.zeros((48, 48), np.uint16)
    ids[1:3, 1:3] = ids[1:3, 10:12] = 300  # apart
    ids[20:24, 20:24] = ids[25:26, 25:26] = 7  # a speck beside it
    ids[34:47, 34:36] = ids[34:47, 44:46] = ids[46:48, 34:46] = 8  # a bracket
    ids[10:40, 1:3] = 9  # longer than a small block
    ids[4:6, 20:22] = ids[36:38, 20:22] = 10  # in two blocks
    with opened(tmp_path / "a.tif", ids) as labels:
        (warning,) = warnings_of(labels, INSTANCES)
    assert warning.startswith("objects in pieces far apart: 2 (id 10, 300);")


def test_grey_levels_of_a_lossy_image_are_named(tmp_path):
    """Discs that were saved as JPEG, then as PNG: their borders have many values, each in all of them."""
    rows, columns = np.mgrid[:128, :128]
    discs = sum(((rows - y) ** 2 + (columns - x) ** 2 < 100) for y in (30, 90) for x in (30, 90)) * 200
    jpeg = imagecodecs.jpeg8_encode(discs.astype(np.uint8), level=75)
    with opened(tmp_path / "a.tif", imagecodecs.jpeg8_decode(jpeg)) as labels:
        (warning,) = warnings_of(labels, INSTANCES)
    assert warning.startswith("objects in pieces far apart: ")


def test_a_bit_per_pixel_has_the_values_of_the_configuration():
    mask = np.array([[False, True]])
    assert class_map(mask, MEMBRANES, source=HERE).tolist() == [[0, 1]]
    assert class_map(mask, INSTANCES, source=HERE).tolist() == [[0, 1]]
    plain = MEMBRANES.model_copy(update={"values": None})
    assert class_map(mask, plain, source=HERE).tolist() == [[0, 1]]


@given(objects=few_objects)
def test_separated_objects_do_not_touch_and_nothing_else_changes(objects):
    separated = separate_touching(objects)
    changed = separated != objects
    assert (separated[changed] == 0).all()
    for here, there in ((separated[:, :-1], separated[:, 1:]), (separated[:-1], separated[1:])):
        assert not ((here != there) & (here > 0) & (there > 0)).any()
    components = skimage.measure.label(separated > 0, connectivity=1)
    for index in range(1, components.max() + 1):
        assert len(np.unique(separated[components == index])) == 1


def test_the_line_between_objects_is_one_pixel_wide():
    objects = np.array([[1, 1, 1, 2, 2, 2]] * 2, dtype=np.int32)
    assert separate_touching(objects).tolist() == [[1, 1, 0, 2, 2, 2]] * 2


def test_objects_of_a_binary_mask_are_its_connected_components():
    mask = np.array([[255, 0, 255], [255, 0, 255], [0, 255, 0]], dtype=np.uint8)
    classes, objects = training_objects(mask, MEMBRANES, source=HERE)
    assert classes.tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]
    assert objects.tolist() == [[1, 0, 2], [1, 0, 2], [0, 3, 0]]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("unknown_class_value", "belong to no class"),
        ("grey_mask", "belong to no class"),
        ("rgb_mask", "a label image has 1 channel, this file has 3"),
    ],
)
def test_real_masks_with_defects_are_refused(data, pair, message):
    path = data / "bad" / "crafted" / "pairs" / pair / "masks" / "x.tif"
    with pytest.raises(SlideError, match=message), open_plane(path, memory_mb=100) as labels:
        training_objects(labels.read_all()[0], MEMBRANES, source=path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [9] * 3,
            "pixels of value 9 (3 px) belong to no class (0 = background, 1 = cell); fix the file or training.val",
        ),
        (
            [2, 3, 3, 4, 5],
            "pixels of value 2 (1 px), 3 (2 px), 4 (1 px), ... belong to no class (0 = background, 1 = cell); "
            "if they are ids of objects, set training.kind: instances; else fix the file or training.values",
        ),
    ],
)
def test_values_of_no_class_are_named_with_their_pixels(values, message):
    kind = LabelConfig(classes=["background", "cell"], kind="classes")
    with pytest.raises(SlideError, match=re.escape(message)):
        class_map(np.array([values], np.uint8), kind, source=HERE)


def test_a_stack_of_labels_has_an_advice_of_its_own(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((3, 20, 30), np.uint8), metadata={"axes": "ZYX"}, ome=True)
    advice = "3 planes along axis Z; a label image has one: save that of its slide"
    with pytest.raises(SlideError, match=advice), open_plane(tmp_path / "a.ome.tif", memory_mb=100):
        pass
