"""Distances between boundaries: by hand, against MONAI and SciPy, and the same for any blocks."""

import dask
import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from pipeline.metrics.boundaries import boundaries, boundary_overlaps, surface_distances, with_cache
from pipeline.metrics.surface import Distances, average_distance, band_width_px, hausdorff95, surface_dice
from pipeline.slides.labels import IGNORED
from tests.support.pairs import pairs

SPACING = (1.0, 1.0)
SIZES_UM = (1.0, 0.325, 0.2527, 0.1)


def distances_of(truth, predicted, spacing=SPACING, block_px=16):
    sides = {"block_px": (block_px, block_px), "read_px": (block_px + 3, block_px)}
    return surface_distances(truth, predicted, num_classes=2, spacing=spacing, **sides)[1]


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
    square = np.zeros((6, 6), np.uint8)
    square[1:5, 1:5] = 1
    assert (boundaries(square, np.s_[0:6, 0:6]) == 2).sum() == 12
    assert (boundaries(np.ones((4, 5), np.uint8), np.s_[0:4, 0:5]) == 2).sum() == 14


@given(data=st.data(), chunk_px=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_a_cached_array_has_the_same_pixels(data, chunk_px):
    pixels = np.arange(11 * 13).reshape(11, 13)
    cached = with_cache(pixels, chunk_px)
    for _ in range(3):
        region = tuple(
            slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))) for n in pixels.shape
        )
        np.testing.assert_array_equal(cached[region], pixels[region])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.2273, 0.25)])
def test_any_blocks_and_threads_give_the_same_bits(generator, spacing):
    """Far apart, beyond what is searched pixel by pixel, and close by."""
    truth, predicted = np.zeros((2, 90, 80), np.uint8)
    truth[5:30, 5:70] = generator.integers(0, 2, (25, 65))
    predicted[25:60, 40:75] = generator.integers(0, 2, (35, 35))
    found = set()
    for threads, block_px, read_px in (
        (1, (90, 80), (90, 80)),
        (1, (7, 9), (11, 80)),
        (2, (7, 9), (5, 6)),
        (4, (30, 9), (9, 9)),
    ):
        with dask.config.set(num_workers=threads):
            sides = {"block_px": block_px, "read_px": read_px}
            both = surface_distances(truth, predicted, num_classes=2, spacing=spacing, **sides)
        found.add(tuple(part.values.tobytes() + part.counts.tobytes() for pair in both for part in pair))
    assert len(found) == 1


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


@pytest.mark.parametrize(
    ("size_um", "place"), [(1.0, (57, 131)), (0.325, (203, 77)), (0.2527, (10, 10)), (0.1, (250, 250))]
)
def test_pixels_of_any_size_and_any_place_give_the_surface_dice_that_monai_gives_in_pixels(size_um, place):
    """At tolerances that are a distance in pixels, as 5 is that of (3, 4); as computed, and as a user types them."""
    for truth, predicted in pairs(24):
        both = [torch.from_numpy(np.stack([labels == 0, labels == 1])[None]) for labels in (predicted, truth)]
        margin = [(place[0], 5), (place[1], 5)]
        moved = [np.pad(labels, margin) for labels in (truth, predicted)]
        there, back = distances_of(*moved, (size_um, size_um), block_px=64)
        plain = distances_of(*moved, block_px=64)
        for found, expected in zip((there, back), plain, strict=True):
            np.testing.assert_array_equal(found.values, size_um * expected.values)
            np.testing.assert_array_equal(found.counts, expected.counts)
        for tolerance_px in (1.0, 2.0, 3.0, 5.0):
            expected = compute_surface_dice(*both, class_thresholds=[tolerance_px]).item()
            for tolerance in (tolerance_px * size_um, round(tolerance_px * size_um, 4)):
                assert surface_dice(there, back, tolerance=tolerance) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("stated_um", [3e-7, -3e-7])
def test_a_pixel_size_rounded_in_a_file_changes_no_surface_dice(stated_um):
    """As by a TIFF, which has a ratio of integers, or by a float32."""
    truth, predicted = np.zeros((2, 40, 40), np.uint8)
    truth[10, 10], predicted[13, 14] = 1, 1
    size_um = 0.325 * (1 + stated_um)
    assert surface_dice(*distances_of(truth, predicted, (size_um, size_um)), tolerance=1.625) == 1
    assert surface_dice(*distances_of(truth, predicted, (size_um, size_um)), tolerance=1.62) == 0


@pytest.mark.parametrize("size_um", SIZES_UM)
def test_the_width_of_a_band_is_the_same_in_pixels_of_any_size(size_um):
    for tolerance_px, width_px in ((0.2, 1), (1.0, 1), (1.5, 2), (2.0, 2), (2.5, 3), (2.6, 3), (4.5, 5), (9.0, 9)):
        for tolerance in (tolerance_px * size_um, round(tolerance_px * size_um, 6)):
            assert band_width_px(tolerance, (size_um, size_um)) == width_px


def test_boundary_overlap_is_that_of_repeated_erosion():
    for truth, predicted in pairs(40):
        for width_px in (1, 3):
            bands = [
                mask & ~scipy.ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width_px)
                for mask in (truth == 1, predicted == 1)
            ]
            expected = ((bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum())
            for read_px in ((9, 9), (64, 64)):
                found = boundary_overlaps(truth, predicted, num_classes=2, width_px=width_px, read_px=read_px)
                assert tuple(found[1]) == expected


def plain_boundary(labels):
    """Pixels of class 1 with a known 4-neighbour of another class, or at the edge of the image: one by one."""
    found = np.zeros(labels.shape, bool)
    for row, column in np.argwhere(labels == 1):
        for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            place = row + down, column + across
            inside = 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]
            found[row, column] |= not inside or labels[place] not in (1, IGNORED)
    return found


def plain_band(labels, width_px):
    """Pixels of class 1 with a known pixel of another class, or one beyond the image, among those around."""
    around = np.pad(np.where(labels == IGNORED, 1, labels), width_px)
    windows = np.lib.stride_tricks.sliding_window_view(around, (2 * width_px + 1,) * 2)
    return (labels == 1) & (windows != 1).any(axis=(2, 3))


def test_pixels_without_annotation_have_no_boundary_and_make_none(generator):
    for truth, predicted in pairs(24):
        unknown = scipy.ndimage.gaussian_filter(generator.normal(size=truth.shape), 3) > 0.05
        both = [np.where(unknown, IGNORED, labels).astype(np.uint8) for labels in (truth, predicted)]
        edges = [plain_boundary(labels) for labels in both]
        for labels, edge in zip(both, edges, strict=True):
            np.testing.assert_array_equal(boundaries(labels, np.s_[0:37, 0:43]) == 2, edge)
        bands = [plain_band(labels, 3) for labels in both]
        found = boundary_overlaps(*both, num_classes=2, width_px=3, read_px=(9, 9))[1]
        assert tuple(found) == ((bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum())
        if edges[0].any() and edges[1].any():
            maps = [scipy.ndimage.distance_transform_edt(~edge) for edge in edges]
            for part, plain in zip(distances_of(*both), (maps[1][edges[0]], maps[0][edges[1]]), strict=True):
                np.testing.assert_allclose(np.repeat(part.values, part.counts), np.sort(plain))


def test_an_object_cut_by_pixels_without_annotation_has_no_boundary_there():
    truth = np.ones((5, 12), np.uint8) * IGNORED
    truth[:, :6] = 0
    truth[1:4, 2:6] = 1  # goes on to the right, where nobody annotated
    assert np.flatnonzero(boundaries(truth, np.s_[0:5, 0:12])[2] == 2).tolist() == [2]
    assert (boundaries(truth, np.s_[0:5, 0:12]) == 2).sum() == 4 + 4 + 1


def test_distances_of_parts_merge_to_those_of_the_whole():
    values = np.random.default_rng(0).integers(0, 9, 50).astype(float)
    whole, parts = Distances.of(values), Distances.merge([Distances.of(values[:20]), Distances.of(values[20:])])
    np.testing.assert_array_equal(whole.values, parts.values)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    for percent in (0, 50, 95, 100):
        assert parts.percentile(percent) == pytest.approx(np.percentile(values, percent))
    assert Distances.merge([]).total == 0
