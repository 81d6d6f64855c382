"""Pictures show the slide in its proportions, with outlines where the labels change."""

import numpy as np
import pytest
import tifffile

from pipeline.overlay import PREDICTED_RGB, TRUTH_RGB, overlay, picture_shape, shrink, to_png
from pipeline.slides import open_slide


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 50), (100, 50)), ((1536, 768), (768, 384)), ((10_000, 2), (768, 1)), ((1, 1), (1, 1))],
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


def test_outlines_are_drawn_over_a_grey_picture(generator):
    image = generator.integers(0, 255, (1, 20, 20)).astype(np.uint8)
    predicted, truth = np.zeros((2, 20, 20), np.uint8)
    predicted[2:8, 2:8] = truth[12:18, 12:18] = 1
    picture = overlay(image, predicted, truth)
    assert tuple(picture[2, 4]) == PREDICTED_RGB
    assert tuple(picture[12, 14]) == TRUTH_RGB
    assert len(set(picture[5, 5])) == 1
    assert to_png(picture).startswith(b"\x89PNG")
