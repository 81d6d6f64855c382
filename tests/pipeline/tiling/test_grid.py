"""The write regions of a grid partition the slide."""

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.base.geometry import Geometry
from pipeline.tiling.grid import Grid

extents = st.integers(1, 300)
strides = st.sampled_from([1, 2, 8, 16])


@st.composite
def grids(draw):
    geometry = Geometry(stride_px=draw(strides), context_px=draw(st.integers(0, 100)))
    return Grid.plan((draw(extents), draw(extents)), geometry=geometry, tile_px=draw(st.integers(1, 200)))


@given(grid=grids())
def test_write_regions_partition_the_slide(grid):
    written = np.zeros(grid.shape, dtype=int)
    for tile in grid.tiles():
        assert min(tile.write.shape) > 0
        written[tile.write.slices] += 1
    assert (written == 1).all()
    assert len(list(grid.tiles())) == grid.count


@given(grid=grids())
def test_every_window_is_aligned_and_reaches_a_halo_beyond_what_it_writes(grid):
    for tile in grid.tiles():
        read, write = tile.read, tile.write
        for edge in (read.top, read.left, read.bottom, read.right):
            assert edge % grid.stride_px == 0
        assert (write.top - read.top, write.left - read.left) == (grid.halo_px, grid.halo_px)
        assert grid.halo_px <= read.bottom - write.bottom < grid.halo_px + grid.stride_px
        assert grid.halo_px <= read.right - write.right < grid.halo_px + grid.stride_px


@given(shape=st.tuples(extents, extents), stride=strides, tile_px=st.integers(16, 200))
def test_a_tile_is_never_larger_than_the_limit(shape, stride, tile_px):
    grid = Grid.plan(shape, geometry=Geometry(stride_px=stride, context_px=0), tile_px=tile_px)
    assert max(grid.tile) <= tile_px


@given(
    shape=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    stride=strides,
    context=st.integers(0, 100),
    window_px=st.integers(300**2, 2000**2),
)
def test_windows_are_never_larger_than_memory_allows(shape, stride, context, window_px):
    grid = Grid.within(shape, geometry=Geometry(stride_px=stride, context_px=context), window_px=window_px)
    sides = [side + 2 * grid.halo_px for side in grid.tile]
    assert sides[0] * sides[1] <= window_px
    assert all(tile.read.shape[0] * tile.read.shape[1] <= window_px for tile in grid.tiles())


@given(shape=st.tuples(st.integers(1, 5000), st.integers(1, 500)), window_px=st.integers(300**2, 1000**2))
def test_memory_does_not_grow_with_the_number_of_rows(shape, window_px):
    geometry = Geometry(stride_px=16, context_px=94)
    grids = [
        Grid.within((rows, shape[1]), geometry=geometry, window_px=window_px) for rows in (shape[0], 10 * shape[0])
    ]
    lengths = [max(tile.read.shape[0] * tile.read.shape[1] for tile in grid.tiles()) for grid in grids]
    assert max(lengths) <= window_px
    if grids[0].tile[0] < shape[0] and grids[0].tile[1] == grids[1].tile[1]:
        assert lengths[0] == lengths[1]


@given(grid=grids())
def test_no_window_is_larger_than_a_grid_says_and_redundancy_is_their_sum(grid):
    windows_px = [tile.read.shape[0] * tile.read.shape[1] for tile in grid.tiles()]
    assert max(windows_px) <= grid.window_px
    assert grid.redundancy == pytest.approx(sum(windows_px) / (grid.shape[0] * grid.shape[1]), rel=1e-12)


def test_a_window_below_the_smallest_of_the_network_is_refused():
    with pytest.raises(ValueError, match=r"windows of 40000 px are too small .* smallest has 43264 px"):
        Grid.within((500, 500), geometry=Geometry(stride_px=16, context_px=94), window_px=200**2)


def test_a_narrow_slide_is_cut_into_rows_of_high_tiles():
    grid = Grid.within((100_000, 500), geometry=Geometry(stride_px=16, context_px=94), window_px=1500**2)
    assert grid.tile[1] == 512
    assert 704 * (grid.tile[0] + 192 + 16) > 0.97 * 1500**2


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    context=st.integers(0, 20),
    window_px=st.integers(60**2, 200**2),
)
def test_no_other_tiles_within_the_limit_have_less_redundancy(shape, context, window_px):
    geometry = Geometry(stride_px=8, context_px=context)
    chosen = Grid.within(shape, geometry=geometry, window_px=window_px)
    for rows, columns in itertools.product(range(8, 312, 8), repeat=2):
        grid = Grid(shape=shape, tile=(rows, columns), halo_px=geometry.halo_px, stride_px=8)
        if (rows + 2 * grid.halo_px) * (columns + 2 * grid.halo_px) <= window_px:
            assert chosen.redundancy <= grid.redundancy + 1e-12


@given(grid=grids())
def test_a_grid_is_equal_after_json(grid):
    assert Grid.from_dict(json.loads(json.dumps(asdict(grid)))) == grid


def test_the_published_572_pixel_input_gives_384_pixels_of_a_slide():
    valid = Geometry(stride_px=16, context_px=94, margin_px=92, remainder_px=12)
    tile = next(Grid.plan((384, 384), geometry=valid, tile_px=388).tiles())
    assert tile.write.shape == (384, 384)
    assert tile.read.shape == (576, 576)
    assert valid.input_px(576) == 572


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": (0, 5)}, "at least one pixel"),
        ({"halo_px": 5}, "halo_px must be a multiple of the stride of 4, got 5"),
        ({"tile": (6, 8)}, "tile rows must be a multiple of the stride of 4, got 6"),
        ({"tile": (0, 8)}, "a tile has at least one pixel"),
    ],
)
def test_an_impossible_grid_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Grid(**{"shape": (10, 10), "tile": (8, 8), "halo_px": 4, "stride_px": 4} | wrong)
