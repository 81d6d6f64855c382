"""Blending of windows that agree gives their values; disagreement is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from models.base.geometry import Geometry
from pipeline.prediction.blending import Blend
from pipeline.prediction.forward import predict_image
from pipeline.tiling.grid import Grid, Region
from pipeline.tiling.mirror_padding import read_mirrored

GLOBAL = Geometry(stride_px=8, context_px=None)


def extended(tile, grid):
    rows, columns = (-(-length // 8) * 8 + 2 * grid.overlap_px for length in tile.write.shape)
    top, left = tile.write.top - grid.overlap_px, tile.write.left - grid.overlap_px
    return Region(top=top, left=left, bottom=top + rows, right=left + columns)


def blended(grid, window_of):
    """Blend the windows of ``window_of``; return the map, how often each pixel was yielded, and the mismatch."""
    blend = Blend(grid, 2)
    result, times = np.zeros((2, *grid.shape)), np.zeros(grid.shape, dtype=int)
    for tile in grid.tiles():
        for region, probabilities in blend.add(tile, window_of(tile, extended(tile, grid))):
            result[:, *region.slices] = probabilities
            times[region.slices] += 1
    return result, times, blend.mismatch


@settings(max_examples=50)
@given(rows=st.integers(1, 60), columns=st.integers(1, 60), tile_px=st.integers(8, 50), seed=st.integers(0, 99))
def test_blending_windows_of_a_map_gives_the_map(rows, columns, tile_px, seed):
    grid = Grid.plan((rows, columns), geometry=GLOBAL, tile_px=tile_px, mirror_px=0)
    truth = np.random.default_rng(seed).random((1, rows, columns)).astype(np.float32)
    truth = np.concatenate([truth, 1 - truth])
    result, times, mismatch = blended(
        grid, lambda _, region: read_mirrored(lambda r, c: truth[:, r, c], grid.shape, region)
    )
    np.testing.assert_allclose(result, truth, atol=1e-6)
    assert (times == 1).all()
    assert mismatch.differing_px == 0
    assert (mismatch.compared_px > 0) == (grid.count > 1)


@settings(max_examples=25)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), tile_px=st.integers(8, 40), seed=st.integers(0, 99))
def test_blending_is_the_mean_weighted_by_the_gaussian_of_each_window(rows, columns, tile_px, seed):
    """Against sums over whole arrays in float64, pixel by pixel; and labels compared with the first window there."""
    grid = Grid.plan((rows, columns), geometry=GLOBAL, tile_px=tile_px, mirror_px=0)
    generator = np.random.default_rng(seed)
    total, weight = np.zeros((2, rows, columns)), np.zeros((rows, columns))
    first, compared, differing = np.full((rows, columns), -1), 0, 0
    windows = {}
    for tile in grid.tiles():
        region = extended(tile, grid)
        window = windows[tile] = generator.random((2, *region.shape)).astype(np.float32)
        height, width = region.shape
        for row, column in np.ndindex(height, width):
            place = region.top + row, region.left + column
            if not (0 <= place[0] < rows and 0 <= place[1] < columns):
                continue
            distances = ((row - (height - 1) / 2) / height, (column - (width - 1) / 2) / width)
            share = np.prod([max(np.exp(-0.5 * (8 * distance) ** 2), 1e-3) for distance in distances])
            total[:, *place] += share * window[:, row, column]
            weight[place] += share
            label = int(window[1, row, column] > window[0, row, column])
            compared += first[place] >= 0
            differing += first[place] not in {-1, label}
            first[place] = label if first[place] < 0 else first[place]
    result, _, mismatch = blended(grid, lambda tile, _: windows[tile])
    np.testing.assert_allclose(result, total / weight, rtol=1e-5)
    assert (mismatch.compared_px, mismatch.differing_px) == (compared, differing)


def test_disagreement_is_counted_by_hand():
    """Two tiles of 16x16 side by side that overlap by 8 columns on each side of their border and always disagree."""
    grid = Grid(shape=(16, 32), tile=(16, 16), halo_px=8, surround_px=8, stride_px=8, overlap_px=8)

    def constant(tile, region):
        left = float(tile.write.left == 0)
        return np.stack([np.full(region.shape, left), np.full(region.shape, 1 - left)]).astype(np.float32)

    result, _, mismatch = blended(grid, constant)
    assert (mismatch.compared_px, mismatch.differing_px) == (16 * 16, 16 * 16)
    assert (result[0, :, :8] == 1).all()
    assert (result[1, :, 24:] == 1).all()
    across = result[0, 0, 8:24]
    assert (np.diff(across) < 0).all()
    np.testing.assert_allclose(across + across[::-1], 1, atol=1e-6)


@pytest.mark.parametrize("name", ["pspnet", "deeplabv3"])
def test_networks_with_global_context_are_blended(name, generator):
    network = models.build(name, in_channels=1, num_classes=3, options={"width": 2}).eval()
    image = generator.random((1, 150, 130), dtype=np.float32)
    labels = predict_image(network, image, num_classes=3, tile_px=64)
    assert labels.shape == (150, 130)
    assert set(np.unique(labels)) <= {0, 1, 2}


def test_only_blended_tiles_keep_a_part_of_the_halo():
    exact = Grid.plan((100, 100), geometry=Geometry(stride_px=16, context_px=20), tile_px=32, mirror_px=0)
    assert exact.overlap_px == 0
    assert {tile.cut.left for tile in exact.tiles()} == {0, 32}
    cropping = Geometry(stride_px=16, context_px=None, margin_px=92, remainder_px=12)
    grid = Grid.plan((100, 100), geometry=cropping, tile_px=64, mirror_px=0)
    assert (grid.overlap_px, grid.halo_px) == (16, 112)
    assert {side for tile in grid.tiles() for side in tile.cut} == {96}
