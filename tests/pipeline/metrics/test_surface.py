"""Distances between boundaries: by hand, against MONAI and SciPy, and the same for any blocks."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from pipeline.metrics.surface import (
    Distances,
    average_distance,
    boundary,
    boundary_overlap,
    hausdorff95,
    surface_dice,
    surface_distances,
)
from tests.support.pairs import pairs

SPACING = (1.0, 1.0)


def distances_of(truth, predicted, spacing=SPACING, block_px=16):
    return surface_distances(truth, predicted, 1, spacing=spacing, block_px=(block_px, block_px))


def by_distance_transform(truth, predicted, spacing):
    """Both directions by SciPy's erosion and its distance map of the whole image."""
    edges = [mask & ~scipy.ndimage.binary_erosion(mask) for mask in (truth == 1, predicted == 1)]
    if not (edges[0].any() and edges[1].any()):
        return None
    maps = [scipy.ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return maps[1][edges[0]], maps[0][edges[1]]


def test_by_hand():
    truth, predicted = np.zeros((2, 9, 12), np.uint8)
    truth[4, 2] = 1
    predicted[4, 5] = predicted[1, 2] = predicted[4, 10] = 1
    there, back = distances_of(truth, predicted)
    assert (there.values.tolist(), there.counts.tolist()) == ([3.0], [1])
    assert (back.values.tolist(), back.counts.tolist()) == ([3.0, 8.0], [2, 1])
    assert hausdorff95(there, back) == pytest.approx(3 + 0.9 * 5)  # the 95th percentile of 3, 3, 8
    assert average_distance(there, back) == pytest.approx((3 + 3 + 3 + 8) / 4)
    assert surface_dice(there, back, tolerance=3) == pytest.approx(3 / 4)
    assert surface_dice(there, back, tolerance=2.9) == 0


def test_the_boundary_of_a_square_and_of_a_full_image():
    square = np.zeros((6, 6), bool)
    square[1:5, 1:5] = True
    assert boundary(square).sum() == 12
    assert boundary(np.ones((4, 5), bool)).sum() == 14


@pytest.mark.parametrize("spacing", [SPACING, (0.5, 0.8)])
def test_against_scipy_for_any_blocks(spacing):
    for truth, predicted in pairs():
        expected = by_distance_transform(truth, predicted, spacing)
        for block_px in (13, 64):
            there, back = distances_of(truth, predicted, spacing, block_px)
            if expected is None:
                assert np.isnan(hausdorff95(there, back))
                assert np.isnan(average_distance(there, back))
                continue
            for found, plain in zip((there, back), expected, strict=True):
                np.testing.assert_allclose(np.repeat(found.values, found.counts), np.sort(plain), rtol=1e-12)
            percentiles = [np.percentile(plain, 95) for plain in expected]
            assert hausdorff95(there, back) == pytest.approx(max(percentiles))


def test_against_monai():
    for truth, predicted in pairs():
        there, back = distances_of(truth, predicted)
        both = [torch.from_numpy(np.stack([labels == 0, labels == 1])[None]) for labels in (predicted, truth)]
        if there.total and back.total:
            expected = compute_hausdorff_distance(*both, percentile=95).item()
            assert hausdorff95(there, back) == pytest.approx(expected, rel=1e-5)
            expected = compute_average_surface_distance(*both, symmetric=True).item()
            assert average_distance(there, back) == pytest.approx(expected, rel=1e-5)
        for tolerance in (0.0, 1.0, 2.5):
            expected = compute_surface_dice(*both, class_thresholds=[tolerance]).item()
            assert surface_dice(there, back, tolerance=tolerance) == pytest.approx(expected, nan_ok=True)


def test_boundary_overlap_is_that_of_repeated_erosion():
    for truth, predicted in pairs(40):
        for width_px in (1, 3):
            bands = [
                mask & ~scipy.ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width_px)
                for mask in (truth == 1, predicted == 1)
            ]
            expected = ((bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum())
            for block_px in ((9, 9), (64, 64)):
                assert boundary_overlap(truth, predicted, 1, width_px=width_px, block_px=block_px) == expected


def test_distances_of_parts_merge_to_those_of_the_whole():
    values = np.random.default_rng(0).integers(0, 9, 50).astype(float)
    whole, parts = Distances.of(values), Distances.merge([Distances.of(values[:20]), Distances.of(values[20:])])
    np.testing.assert_array_equal(whole.values, parts.values)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    for percent in (0, 50, 95, 100):
        assert parts.percentile(percent) == pytest.approx(np.percentile(values, percent))
    assert Distances.merge([]).total == 0
