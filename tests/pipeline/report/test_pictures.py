"""Pictures show the slide, its classes in their colours and its errors, and stay small enough for a page."""

import io
import itertools

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2xyz, xyz2lab
from skimage.color.colorconv import rgb_from_xyz, xyz_from_rgb

from pipeline.base.palette import CONFUSED_RGB, EXTRA_RGB, MISSED_RGB, class_rgb
from pipeline.report.pictures import error_map, layers_of, picture_shape, shrink, side_px
from pipeline.slides.slide import open_slide


def layers(folder, image, mask, truth, *, side=64, num_classes=3):
    """Write an image and a mask and return their layers."""
    photometric = "rgb" if image.ndim == 3 and image.shape[2] == 3 else "minisblack"
    tifffile.imwrite(folder / "image.tif", image, photometric=photometric)
    tifffile.imwrite(folder / "mask.tif", mask)
    with (
        open_slide(folder / "image.tif", memory_mb=100) as slide,
        open_slide(folder / "mask.tif", memory_mb=100) as labels,
    ):
        return layers_of(slide, labels, truth, side_px=side, num_classes=num_classes)


def pixels(content):
    return np.array(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 50), (100, 50)), ((1536, 768), (768, 384)), ((10_000, 2), (768, 1)), ((1, 1), (1, 1))],
)
def test_a_picture_is_the_slide_or_smaller(shape, expected):
    assert picture_shape(shape, 768) == expected


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
    truth = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [9, 9, 9]], np.uint8)  # 9: not counted
    mask = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]], np.uint8)
    expected = [[0, 1, 1], [2, 0, 3], [2, 3, 0], [0, 0, 0]]
    assert error_map(truth, mask, num_classes=3).tolist() == expected
    found = layers(tmp_path, np.zeros((4, 3), np.uint8), mask, truth)
    colours = [(0, 0, 0, 0), *((*colour, 255) for colour in (EXTRA_RGB, MISSED_RGB, CONFUSED_RGB))]
    seen = pixels(found.error)
    seen[seen[..., 3] == 0] = 0
    np.testing.assert_array_equal(seen, np.array(colours, np.uint8)[np.array(expected)])


def test_classes_are_shown_in_their_colours_and_the_background_not_at_all(tmp_path):
    mask = np.array([[0, 1], [2, 0]], np.uint8)
    found = layers(tmp_path, np.zeros((2, 2), np.uint8), mask, mask[::-1])
    for content, classes in ((found.predicted, mask), (found.truth, mask[::-1])):
        seen = pixels(content)
        np.testing.assert_array_equal(seen[..., 3], 255 * (classes > 0))
        for index in (1, 2):
            np.testing.assert_array_equal(seen[classes == index, :3], [class_rgb(index)])
    assert found.shape == (2, 2)


def test_without_a_reference_there_is_neither_truth_nor_error(tmp_path):
    found = layers(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), None)
    assert (found.truth, found.error) == (None, None)


def test_truth_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\(3, 2\), the picture \(2, 2\)"):
        layers(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8))


def test_a_colour_slide_is_shown_in_colour(tmp_path):
    image = np.empty((40, 30, 3), np.uint8)
    image[:] = (200, 60, 120)
    seen = pixels(layers(tmp_path, image, np.zeros((40, 30), np.uint8), None).image)
    assert seen.shape == (40, 30, 4)
    assert np.abs(seen[..., :3].astype(int) - (200, 60, 120)).max() < 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_other_slides_are_shown_in_grey_from_black_to_white(tmp_path, dtype):
    image = np.tile(np.linspace(10, 200, 60), (40, 1)).astype(dtype)
    seen = pixels(layers(tmp_path, image, np.zeros((40, 60), np.uint8), None).image).astype(int)
    assert np.ptp(seen[..., :3], axis=2).max() <= 4
    assert seen[20, 0, 0] < 20
    assert seen[20, -1, 0] > 235


@given(count=st.integers(1, 2_000))
def test_more_results_never_get_larger_pictures(count):
    assert 48 <= side_px(count + 1) <= side_px(count) <= 768


def test_few_results_get_large_pictures():
    assert side_px(1) == side_px(25) == 768
    assert side_px(500) >= 160


@pytest.mark.parametrize("count", [1, 100, 500, 2_000])
def test_a_page_of_noise_is_below_15_mb(tmp_path, generator, count):
    """The worst slides for any compression: every pixel is another colour and another class."""
    side = side_px(count)
    image = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask, truth = generator.integers(0, 8, (2, side, side), dtype=np.uint8)
    found = layers(tmp_path, image, mask, truth, side=side, num_classes=8)
    pictures_bytes = sum(len(content) for content in (found.image, found.predicted, found.truth, found.error))
    assert count * (4 / 3 * pictures_bytes + 2_500) < 15e6


def test_the_colours_of_classes_differ():
    colours = [class_rgb(index) for index in range(15)]
    assert all(a != b for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize("matrix", ["protan", "deutan", "tritan"])
def test_the_colour_blind_tell_errors_apart(matrix):
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
    linear = rgb2xyz(np.array([EXTRA_RGB, MISSED_RGB, CONFUSED_RGB]) / 255) @ rgb_from_xyz.T
    seen = xyz2lab((linear @ simulate.T).clip(0, 1) @ xyz_from_rgb.T)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 25
