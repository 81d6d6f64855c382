"""Pictures show the slide, its classes in their colours and its errors, and stay small enough for a page."""

import io
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.color import rgb2xyz, xyz2lab
from skimage.color.colorconv import rgb_from_xyz, xyz_from_rgb
from skimage.segmentation import find_boundaries

from pipeline.base.errors import StorageError
from pipeline.base.palette import CONFUSED_RGB, EXTRA_RGB, MISSED_RGB, PREDICTED_RGB, TRUTH_RGB, class_rgb
from pipeline.report.histograms import histograms_of_sample
from pipeline.report.page_content import MOST_EMBEDDED
from pipeline.report.pictures import (
    SIDE_PX,
    edges,
    error_map,
    picture_shape,
    pictures_of_errors,
    shrink,
    write_pictures,
)
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.slide import open_slide
from tests.support.pages import columns_of, pictures_of


def pixels(content):
    return np.array(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 50), (100, 50)), ((512, 256), (256, 128)), ((10_000, 2), (256, 1)), ((1, 1), (1, 1))],
)
def test_a_picture_is_the_slide_or_smaller(shape, expected):
    assert picture_shape(shape) == expected


@pytest.mark.parametrize("shape", [(120, 90), (60, 45), (7, 11)])
def test_shrinking_picks_pixels_evenly(tmp_path, shape):
    rows, columns = np.mgrid[:120, :90]
    tifffile.imwrite(
        tmp_path / "x.tif",
        np.stack([rows, columns]).astype(np.uint8),
        photometric="minisblack",
        metadata={"axes": "CYX"},
        ome=True,
    )
    with open_slide(tmp_path / "x.tif", memory_mb=100) as slide:
        picked = shrink(slide, shape).astype(float)
    assert picked.shape == (2, *shape)
    np.testing.assert_allclose(picked[0, :, 0], (np.arange(shape[0]) + 0.5) * 120 / shape[0], atol=1)
    np.testing.assert_allclose(picked[1, 0], (np.arange(shape[1]) + 0.5) * 90 / shape[1], atol=1)


def test_every_kind_of_error_has_its_place_and_colour(tmp_path):
    truth = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2]], np.uint8)
    mask = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]], np.uint8)
    expected = [[0, 1, 1], [2, 0, 3], [2, 3, 0]]
    assert error_map(truth, mask, num_classes=3).tolist() == expected
    ignored = np.full_like(truth, 9)
    assert not error_map(ignored, mask, num_classes=3).any()
    found = pictures_of(tmp_path, np.zeros((3, 3), np.uint8), mask, truth)
    colours = [(0, 0, 0, 0), *((*colour, 255) for colour in (EXTRA_RGB, MISSED_RGB, CONFUSED_RGB))]
    seen = pixels(found["error"])
    seen[seen[..., 3] == 0] = 0
    np.testing.assert_array_equal(seen, np.array(colours, np.uint8)[np.array(expected)])


def test_classes_are_shown_in_their_colours_and_the_background_not_at_all(tmp_path):
    mask = np.array([[0, 1], [2, 0]], np.uint8)
    found = pictures_of(tmp_path, np.zeros((2, 2), np.uint8), mask, mask[::-1])
    for content, classes in ((found["predicted"], mask), (found["truth"], mask[::-1])):
        seen = pixels(content)
        np.testing.assert_array_equal(seen[..., 3], 255 * (classes > 0))
        for index in (1, 2):
            np.testing.assert_array_equal(seen[classes == index, :3], [class_rgb(index)])


def test_every_object_has_its_own_outline(generator):
    ids = np.kron(generator.integers(0, 4, (9, 11)), np.ones((3, 5), int))
    np.testing.assert_array_equal(edges(ids), find_boundaries(ids, mode="inner"))
    touching = np.array([[1, 1, 1, 2, 2, 2]] * 3 + [[0] * 6])
    assert edges(touching)[1].tolist() == [False, False, True, True, False, False]


def test_outlines_are_those_of_the_objects_of_truth_and_mask(tmp_path):
    mask, truth = np.zeros((2, 40, 60), np.uint8)
    mask[5:20, 5:20], truth[5:25, 5:20] = 1, 2
    found = pictures_of(tmp_path, np.zeros((40, 60), np.uint8), mask, truth)
    for name, classes, colour in (
        ("predicted_outlines", mask, PREDICTED_RGB),
        ("truth_outlines", truth, TRUTH_RGB),
    ):
        seen = pixels(found[name])
        np.testing.assert_array_equal(seen[..., 3] > 0, find_boundaries(classes, mode="inner"))
        np.testing.assert_array_equal(np.unique(seen[seen[..., 3] > 0][:, :3], axis=0), [colour])


def test_touching_objects_of_a_reference_are_told_apart_by_their_ids(tmp_path):
    ids = np.repeat(np.array([[300, 7, 0, 7]], np.uint16), 8, axis=1).repeat(9, axis=0)
    tifffile.imwrite(tmp_path / "truth.tif", ids)
    tifffile.imwrite(tmp_path / "mask.tif", (ids > 0).astype(np.uint8))
    labels = LabelConfig(classes=["background", "cell"], kind="instances")
    with (
        open_slide(tmp_path / "truth.tif", memory_mb=100) as truth,
        open_slide(tmp_path / "mask.tif", memory_mb=100) as mask,
    ):
        found = pictures_of_errors(truth, mask, labels)
    np.testing.assert_array_equal(pixels(found["truth_outlines"])[..., 3] > 0, find_boundaries(ids, mode="inner"))


def test_slides_too_large_for_objects_have_the_outlines_of_their_classes(tmp_path):
    mask = np.zeros((2100, 60), np.uint8)
    mask[:, 20:40] = 1
    found = pictures_of(tmp_path, mask, mask, mask)
    assert pixels(found["predicted_outlines"]).shape == pixels(found["predicted"]).shape
    assert (pixels(found["predicted_outlines"])[..., 3] > 0).any()


def test_a_slide_that_is_not_larger_is_shown_pixel_by_pixel(tmp_path):
    mask = np.eye(200, 256, dtype=np.uint8)
    found = pictures_of(tmp_path, 255 * mask, mask)
    assert list(found) == ["image", "predicted", "predicted_outlines"]
    np.testing.assert_array_equal(pixels(found["predicted"])[..., 3], 255 * mask)
    assert pixels(found["image"]).shape[:2] == (200, 256)


def test_pixels_that_are_no_numbers_are_black(tmp_path):
    image = np.full((8, 8), 7, np.float32)
    image[0, 0], image[1, 1] = np.nan, np.inf
    seen = pixels(pictures_of(tmp_path, image, np.zeros((8, 8), np.uint8))["image"])
    assert max(seen[0, 0, 0], seen[1, 1, 0]) < 40
    assert seen[6, 6, 0] > 200


@pytest.mark.parametrize("sample", ["plate/a", "a.tif", "ü #2"])
def test_pictures_are_files_below_results(in_folder, sample):
    files = write_pictures({"image": b"1", "predicted": b"2"}, model="unet", sample=sample)
    assert [str(path) for path in files] == [
        f"results/pictures/unet/{sample}.image.webp",
        f"results/pictures/unet/{sample}.predicted.png",
    ]
    assert [(in_folder / path).read_bytes() for path in files] == [b"1", b"2"]


def test_a_picture_that_cannot_be_written_ends_the_job(in_folder):
    (in_folder / "results").write_text("a file where a folder must be")
    with pytest.raises(StorageError, match=r"results/pictures/unet/a\.image\.webp: cannot be written: "):
        write_pictures({"image": b"1"}, model="unet", sample="a")


def test_a_colour_slide_is_shown_in_colour(tmp_path):
    image = np.empty((40, 30, 3), np.uint8)
    image[:] = (200, 60, 120)
    seen = pixels(pictures_of(tmp_path, image, np.zeros((40, 30), np.uint8))["image"])
    assert seen.shape == (40, 30, 4)
    assert np.abs(seen[..., :3].astype(int) - (200, 60, 120)).max() < 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_other_slides_are_shown_in_grey_from_black_to_white(tmp_path, dtype):
    image = np.tile(np.linspace(10, 200, 60), (40, 1)).astype(dtype)
    seen = pixels(pictures_of(tmp_path, image, np.zeros((40, 60), np.uint8))["image"]).astype(int)
    assert np.ptp(seen[..., :3], axis=2).max() <= 4
    assert seen[20, 0, 0] < 20
    assert seen[20, -1, 0] > 235


def test_a_page_of_noise_is_below_15_mb(tmp_path, generator):
    """The worst slides for any compression: every pixel is another colour and another class."""
    image = generator.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    mask, truth = generator.integers(0, 8, (2, SIDE_PX, SIDE_PX), dtype=np.uint8)
    found = pictures_of(tmp_path, image, mask, truth, classes=[f"class {number}" for number in range(8)])
    _, found["marks"] = histograms_of_sample(columns_of(mask, image[..., 0]), mask.shape)
    row_bytes = 2_500  # of many columns
    assert MOST_EMBEDDED * (4 / 3 * sum(map(len, found.values())) + row_bytes) < 15e6


def test_the_colours_of_classes_differ():
    colours = [class_rgb(index) for index in range(15)]
    assert all(a != b for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize("matrix", ["protan", "deutan", "tritan"])
def test_the_colour_blind_tell_errors_and_outlines_apart(matrix):
    """Simulated by Machado, Oliveira and Fernandes (2009), severity 1; distance in CIE Lab."""
    simulate = np.array(
        {
            "protan": [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
            "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
        }[matrix]
    )
    for colours in ((EXTRA_RGB, MISSED_RGB, CONFUSED_RGB), (PREDICTED_RGB, TRUTH_RGB)):
        linear = rgb2xyz(np.array(colours) / 255) @ rgb_from_xyz.T
        seen = xyz2lab((linear @ simulate.T).clip(0, 1) @ xyz_from_rgb.T)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 25
