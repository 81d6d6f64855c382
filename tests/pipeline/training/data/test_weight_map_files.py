"""Weight maps from files: read by region, written in tiles, equal to the formula on the whole label image."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import IGNORED, class_map, separate_touching
from pipeline.slides.slide import open_slide
from pipeline.training.data.weight_map import weight_bands
from pipeline.training.data.weight_map_files import count_classes, label_reader, objects_of, write_maps
from tests.support.masks import numbered
from tests.support.weight_maps import PUBLISHED, direct, random_objects

INSTANCES = LabelConfig(classes=["background", "nucleus"], kind="instances")
CLASSES = LabelConfig(classes=["a", "b", "c"], kind="classes", values=[3, 0, 9])
CLASS_WEIGHT = {"instances": np.array([0.5, 2.0]), "classes": np.array([1.0, 3.0, 0.25])}
SHAPE = 130, 170


def write_labels(folder, config, seed):
    """Write a label image as an annotator saves it; return its path and pixels."""
    objects = random_objects(seed, SHAPE)
    labels = objects * 1009 if config.kind == "instances" else np.array([3, 0, 9])[objects % 3]
    labels = labels.astype(np.uint16)
    tifffile.imwrite(folder / "labels.tif", labels, tile=(32, 48))
    return folder / "labels.tif", labels


def expected_weights(labels, config, path):
    """Return the formula on the whole image, from its definition."""
    if config.kind == "instances":
        objects = separate_touching(labels.astype(np.int32))
        return direct(objects, (objects > 0).astype(int), CLASS_WEIGHT["instances"], 10.0, 5.0)
    classes = class_map(labels, config, source=path)
    return direct(numbered(classes), classes, CLASS_WEIGHT["classes"], 10.0, 5.0)


@pytest.mark.parametrize("config", [INSTANCES, CLASSES], ids=lambda config: config.kind)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(20, 140), columns=st.integers(20, 180))
def test_a_map_made_in_blocks_is_the_formula_on_the_whole(tmp_path_factory, config, seed, rows, columns):
    folder = tmp_path_factory.mktemp("labels")
    path, labels = write_labels(folder, config, seed)
    with open_slide(path, memory_mb=100) as slide:
        bands = weight_bands(
            label_reader(slide, config, objects_of(slide, config, scratch=folder)),
            slide.shape,
            class_weight=CLASS_WEIGHT[config.kind],
            **PUBLISHED,
            block_px=(rows, columns),
        )
        weights = np.concatenate(list(bands)).astype(float)
    np.testing.assert_allclose(weights, expected_weights(labels, config, path), rtol=2**-11, atol=1e-5)  # float16


@pytest.mark.parametrize("config", [INSTANCES, CLASSES], ids=lambda config: config.kind)
def test_classes_are_counted_over_the_whole_image(tmp_path, config):
    path, labels = write_labels(tmp_path, config, seed=1)
    big = np.tile(labels, (9, 7))  # more than a block
    tifffile.imwrite(path, big)
    with open_slide(path, memory_mb=100) as slide:
        counts = count_classes(slide, config)
    classes = class_map(big, config, source=path)
    assert counts.tolist() == [(classes == index).sum() for index in range(len(config.classes))]


def test_pixels_that_are_not_annotated_are_not_counted_and_no_object(tmp_path):
    """Two pieces of class 1 around a piece that is not annotated, which is no third object between them."""
    labels = np.zeros((5, 60), dtype=np.uint8)
    labels[:, :10], labels[:, 20:25], labels[:, 40:] = 1, IGNORED, 1
    config = LabelConfig(classes=["background", "cell"], kind="classes", ignored=IGNORED)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with open_slide(tmp_path / "labels.tif", memory_mb=100) as slide:
        assert count_classes(slide, config).tolist() == [5 * 25, 5 * 30]
        read = label_reader(slide, config, objects_of(slide, config, scratch=tmp_path))
        classes, objects = read(slice(0, 5), slice(0, 60))
    np.testing.assert_array_equal(classes, labels)
    np.testing.assert_array_equal(objects, np.where(labels == 1, 1 + (np.arange(60) >= 40), 0))


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (300, 700), (513, 90)])
def test_a_written_map_is_read_back(tmp_path, shape, generator):
    weights = generator.random(shape).astype(np.float16)
    bands = (weights[top : top + 256] for top in range(0, shape[0], 256))
    write_maps(tmp_path / "weights.tif", bands, [], shape, {"stage": "weigh"})
    with tifffile.TiffFile(tmp_path / "weights.tif") as file:
        np.testing.assert_array_equal(file.asarray(), weights)
        (page,) = file.pages
        assert page.tile == (256, 256)
        assert page.compression.name == "ADOBE_DEFLATE"
        assert json.loads(page.description) == {"shape": list(shape), "stage": "weigh"}
