"""Label images have the meaning of the configuration, or are refused with the value that does not fit."""

from pathlib import Path

import numpy as np
import pytest
import skimage.measure
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.base.errors import SlideError
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import class_map, separate_touching, training_objects
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
        (np.array([[0, 7, 255]]), MEMBRANES, "no class .0 = membrane, 255 = cell., the first has value 7"),
    ],
)
def test_labels_that_do_not_fit_the_configuration_are_refused(labels, config, message):
    with pytest.raises(SlideError, match=message):
        class_map(labels, config, source=HERE)


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
