"""Pairs read from disk equal those in memory; unusable pairs are errors of one line before training."""

import json
import pickle

import numpy as np
import pytest
import skimage.measure
import tifffile

from pipeline.base.errors import SlidemillError
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.networks import AugmentationConfig, HeadsConfig, ModelConfig
from pipeline.settings.schema import Settings
from pipeline.settings.stage_sections import TrainConfig, parse_stage_config
from pipeline.slides.intensity import measure_intensities, normalize, sampled_windows
from pipeline.slides.labels import IGNORED
from pipeline.training.data.annotated_slides import check_classes, open_pairs
from pipeline.training.data.patches import RandomPatches
from pipeline.training.data.weight_map_files import write_maps

SETTINGS = Settings(classes=["background", "nucleus"], models={"unet": ModelConfig(heads=HeadsConfig(distance=True))})


def config_of(**training):
    settings = SETTINGS.model_copy(update={"training": SETTINGS.training.model_copy(update=training)})
    return parse_stage_config(TrainConfig, stage_config(settings, "train", "unet"))


@pytest.fixture
def project(tmp_path, generator):
    """Three good pairs of 64 x 96 px."""
    for name in "abc":
        objects = np.kron(generator.integers(0, 4, (8, 12)), np.ones((8, 8), int)).astype(np.uint16)
        objects[0, 0] = 1
        write(tmp_path, "images", name, generator.integers(0, 255, (64, 96)).astype(np.uint8))
        write(tmp_path, "labels", name, objects)
        weights, distance = generator.random((2, 64, 96)).astype(np.float16)
        (tmp_path / "weights").mkdir(exist_ok=True)
        write_maps(tmp_path / "weights" / f"{name}.tif", iter([weights]), [distance], (64, 96), {})
    return tmp_path


def write(project, folder, name, pixels):
    (project / folder).mkdir(exist_ok=True)
    tifffile.imwrite(project / folder / f"{name}.tif", pixels, compression="zlib", tile=(32, 32))


def opened(project, *, memory_mb=100, **training):
    pairs = find_pairs(project / "images", project / "labels")
    return open_pairs(pairs, project / "weights", memory_mb=memory_mb, config=config_of(**training))


def test_pairs_read_from_disk_equal_those_in_memory(project, monkeypatch):
    near = opened(project)
    monkeypatch.setattr("pipeline.training.data.annotated_slides._KEPT_SHARE", 0.0)
    far = pickle.loads(pickle.dumps(opened(project)))
    assert [one.in_memory for one in (*near, *far)] == [True] * 3 + [False] * 3
    for one, other in zip(near, far, strict=True):
        for rows, columns in (np.s_[:64, :96], np.s_[13:32, 40:96], np.s_[63:64, 0:1]):
            np.testing.assert_array_equal(one.image[:, rows, columns], other.image[:, rows, columns])
            np.testing.assert_array_equal(one.classes[rows, columns], other.classes[rows, columns])
            np.testing.assert_array_equal(one.maps[:, rows, columns], other.maps[:, rows, columns])
        assert one.image.dtype == other.image.dtype == np.float32
        assert (one.shape, one.statistics, one.appearance) == (other.shape, other.statistics, other.appearance)
        assert one.class_index.classes == other.class_index.classes
    image, target, maps = RandomPatches(far, patch_px=32, config=AugmentationConfig(), seed=0)[5]
    assert (image.shape, target.shape, maps.shape) == ((1, 32, 32), (32, 32), (2, 32, 32))


def test_a_pair_is_normalized_as_a_slide_and_its_objects_are_separated(project):
    pixels, objects = (tifffile.imread(project / folder / "a.tif") for folder in ("images", "labels"))
    statistics = measure_intensities(pixels[None])
    first = opened(project)[0]
    np.testing.assert_array_equal(first.image[:, :, :], normalize(pixels[None], statistics))
    parts = skimage.measure.label(first.classes[:], connectivity=1)
    assert all(len(np.unique(objects[parts == index])) == 1 for index in range(1, parts.max() + 1))
    assert ((objects > 0) >= first.classes[:]).all()


def test_pixels_that_are_not_annotated_are_ignored(project):
    first = opened(project, ignored=3)[0]
    objects = tifffile.imread(project / "labels" / "a.tif")
    np.testing.assert_array_equal(first.classes[:] == IGNORED, objects == 3)
    assert first.class_index.classes == [0, 1]


BLANK = np.zeros((64, 96), np.uint8)


@pytest.mark.parametrize(
    ("folder", "pixels", "training", "message"),
    [
        ("images", BLANK + 7, {}, r"images/b.tif: the image is constant, all pixels are 7; there is nothing to learn"),
        ("images", np.full((64, 96), np.nan, np.float32), {}, r"images/b.tif: 6144 pixels are NaN or infinite"),
        ("labels", np.ones((80, 96), np.uint8), {}, r"labels/b.tif: labels of \(80, 96\) px .* image of \(64, 96\) px"),
        ("labels", BLANK, {}, r"labels/b.tif: nothing but background is annotated; .* training.allow_empty"),
        ("labels", BLANK + 9, {"ignored": 9}, r"labels/b.tif: no pixel is annotated"),
    ],
)
def test_a_pair_that_cannot_be_used_is_an_error(project, folder, pixels, training, message):
    write(project, folder, "b", pixels)
    with pytest.raises(SlidemillError, match=message):
        opened(project, **training)


def test_a_nan_outside_the_sample_is_an_error(project, monkeypatch):
    monkeypatch.setattr("pipeline.slides.intensity._WINDOWS", 1)
    monkeypatch.setattr("pipeline.slides.intensity._WINDOW_PX", 32)
    ((top, left),) = sampled_windows((64, 96))
    pixels = np.random.default_rng(0).random((64, 96), np.float32)
    pixels[top - 1, left - 1] = np.nan
    write(project, "images", "b", pixels)
    with pytest.raises(SlidemillError, match="images/b.tif: pixels are NaN or infinite; replace them"):
        opened(project)


def test_an_annotation_file_without_outlines_is_a_blank_label_image(project):
    (project / "labels" / "b.tif").unlink()
    (project / "labels" / "b.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    with pytest.raises(SlidemillError, match=r"labels/b.geojson: nothing but background .* training.allow_empty"):
        opened(project)
    assert opened(project, allow_empty=True)[1].class_index.classes == [0]


def test_a_class_without_a_pixel_is_refused(project):
    """Also if only images that are held back have it."""
    write(project, "labels", "b", BLANK)
    first, blank, last = opened(project, allow_empty=True)
    assert check_classes([first, blank], [last], ["background", "nucleus"]) == []
    with pytest.raises(SlidemillError, match=r"class 'nucleus' has no pixel in any training image, only in .* .a, c.;"):
        check_classes([blank], [first, last], ["background", "nucleus"])
    with pytest.raises(SlidemillError, match=r"class 'mitosis' has no pixel in any training image; annotate it there"):
        check_classes([first, blank], [last], ["background", "nucleus", "mitosis"])


@pytest.mark.parametrize(
    ("inverted_ones", "expected"),
    [
        ("c", "c: 96% of it is not background, usual are 4%; are its labels inverted?"),
        ("abc", "all images: 96% of them is not background; are labels inverted, with 0 for objects?"),
    ],
)
def test_inverted_labels_are_named(project, inverted_ones, expected):
    for name in "abc":
        inverted = name in inverted_ones
        mask = np.zeros((64, 96), np.uint8)
        mask[8:24, 8:24] = 255
        write(project, "labels", name, 255 - mask if inverted else mask)
    (warning,) = check_classes(opened(project), [], ["background", "nucleus"])
    assert warning == expected


def test_doubts_about_an_image_and_its_labels_are_kept(project):
    mask = np.zeros((64, 96), np.uint8)
    mask[8:20, 8:20] = mask[40:52, 40:52] = 255
    write(project, "labels", "a", mask)
    write(project, "labels", "b", np.where(mask > 0, 3, 0).astype(np.uint8))
    found = [one.warnings for one in opened(project)]
    assert found[0] == ("its labels: one value marks all objects, so each connected part is taken for an object",)
    assert found[1] == ("its labels: objects in pieces far apart: 1 (id 3); does each object have an id of its own?",)


def test_values_of_no_class_are_an_error(project):
    with pytest.raises(SlidemillError, match=r"3 of 3 .* cannot be used: \(1\) .*labels/a.tif: .* belong to no class"):
        opened(project, kind="classes", values=[0, 1])


def test_all_problems_are_in_one_message(project):
    write(project, "labels", "b", BLANK)
    write(project, "images", "c", np.zeros((64, 96), np.uint8))
    problems = r"2 of 3 training .*\(1\) .*b.tif: nothing but .*\(2\) .*c.tif: the image is"
    with pytest.raises(SlidemillError, match=problems):
        opened(project)


def test_blank_labels_can_be_allowed(project):
    write(project, "labels", "b", BLANK)
    assert opened(project, allow_empty=True)[1].class_index.classes == [0]


def test_missing_labels_are_in_one_message(project):
    for name in "ac":
        (project / "labels" / f"{name}.tif").unlink()
    with pytest.raises(SlidemillError, match=r"a.tif: no label image .*; 2 of 3 images have none: a, c"):
        opened(project)


def test_a_weight_map_without_the_heads_of_the_training_is_refused(project):
    """As for `slidemill find-lr` after a change of the heads."""
    settings = SETTINGS.model_copy(update={"models": {"unet": ModelConfig(heads=HeadsConfig(distance=False))}})
    config = parse_stage_config(TrainConfig, stage_config(settings, "train", "unet"))
    pairs = find_pairs(project / "images", project / "labels")[:1]
    with pytest.raises(SlidemillError, match=r"a\.tif: has 1 heads, this training 0; run snakemake --until weigh"):
        open_pairs(pairs, project / "weights", memory_mb=100, config=config)
