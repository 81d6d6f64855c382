"""The write regions of a grid partition the slide."""

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.base.geometry import Geometry
from pipeline.settings.schema import MIRROR_PX
from pipeline.tiling.grid import Grid, surround_of

extents = st.integers(1, 300)
strides = st.sampled_from([1, 2, 8, 16])


@st.composite
def grids(draw):
    geometry = Geometry(stride_px=draw(strides), context_px=draw(st.integers(0, 100)))
    mirror_px = draw(st.integers(0, 120))
    return Grid.plan(
        (draw(extents), draw(extents)), geometry=geometry, tile_px=draw(st.integers(1, 200)), mirror_px=mirror_px
    )


@given(grid=grids())
def test_write_regions_partition_the_slide(grid):
    written = np.zeros(grid.shape, dtype=int)
    for tile in grid.tiles():
        assert min(tile.write.shape) > 0
        written[tile.write.slices] += 1
    assert (written == 1).all()
    assert len(list(grid.tiles())) == grid.count


@given(grid=grids())
def test_every_window_is_aligned_and_reaches_a_halo_beyond_what_it_writes_or_to_the_end_of_the_surround(grid):
    stride, halo, surround = grid.stride_px, grid.halo_px, grid.surround_px
    for tile in grid.tiles():
        read, write, cut = tile.read, tile.write, tile.cut
        ends = [(write.top, write.bottom, read.top, read.bottom), (write.left, write.right, read.left, read.right)]
        for (first, last, start, stop), length, cuts in zip(ends, grid.shape, (cut[::2], cut[1::2]), strict=True):
            assert start % stride == stop % stride == 0
            assert start == first - halo or (start == -surround and start > first - halo)
            whole, written = -(-length // stride) * stride, -(-last // stride) * stride
            assert stop == written + halo or (stop == whole + surround and stop < written + halo)
            assert cuts == (first - start, stop - written)


@given(shape=st.tuples(extents, extents), stride=strides, tile_px=st.integers(16, 200))
def test_a_tile_is_never_larger_than_the_limit(shape, stride, tile_px):
    grid = Grid.plan(shape, geometry=Geometry(stride_px=stride, context_px=0), tile_px=tile_px, mirror_px=0)
    assert max(grid.tile) <= tile_px


@given(
    shape=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    stride=strides,
    context=st.integers(0, 100),
    mirror_px=st.integers(0, 120),
    window_px=st.integers(300**2, 2000**2),
)
def test_windows_are_never_larger_than_memory_allows(shape, stride, context, mirror_px, window_px):
    geometry = Geometry(stride_px=stride, context_px=context)
    grid = Grid.within(shape, geometry=geometry, window_px=window_px, mirror_px=mirror_px)
    assert grid.window_px <= window_px
    assert all(tile.read.shape[0] * tile.read.shape[1] <= window_px for tile in grid.tiles())


@given(shape=st.tuples(st.integers(1, 5000), st.integers(1, 500)), window_px=st.integers(300**2, 1000**2))
def test_memory_does_not_grow_with_the_number_of_rows(shape, window_px):
    geometry = Geometry(stride_px=16, context_px=94)
    grids = [
        Grid.within((rows, shape[1]), geometry=geometry, window_px=window_px, mirror_px=96)
        for rows in (shape[0], 10 * shape[0])
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
        Grid.within((500, 500), geometry=Geometry(stride_px=16, context_px=94), window_px=200**2, mirror_px=32)


def test_a_narrow_slide_is_cut_into_rows_of_high_tiles():
    grid = Grid.within((100_000, 500), geometry=Geometry(stride_px=16, context_px=94), window_px=1500**2, mirror_px=32)
    assert grid.tile[1] == 512
    assert 576 * (grid.tile[0] + 192 + 16) > 0.97 * 1500**2


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    context=st.integers(0, 20),
    mirror_px=st.integers(0, 30),
    window_px=st.integers(60**2, 200**2),
)
@example(shape=(17, 289), context=17, mirror_px=0, window_px=60**2)  # uneven: the last column is 1 px wide
def test_no_other_tiles_within_the_limit_have_less_redundancy(shape, context, mirror_px, window_px):
    geometry = Geometry(stride_px=8, context_px=context)
    chosen = Grid.within(shape, geometry=geometry, window_px=window_px, mirror_px=mirror_px)
    for rows, columns in itertools.product(range(8, 312, 8), repeat=2):
        halo = geometry.halo_px
        grid = Grid(
            shape=shape, tile=(rows, columns), halo_px=halo, surround_px=surround_of(geometry, mirror_px), stride_px=8
        )
        if grid.window_px <= window_px:
            assert chosen.redundancy <= grid.redundancy + 1e-12


@given(
    shape=st.tuples(st.integers(1, 30_000), st.integers(1, 30_000)),
    stride=strides,
    context=st.integers(0, 300),
    window_px=st.integers(1000**2, 6000**2),
    tile_px=st.one_of(st.none(), st.integers(128, 5000)),
)
def test_tiles_consist_of_few_pieces_at_every_width(shape, stride, context, window_px, tile_px):
    geometry = Geometry(stride_px=stride, context_px=context)
    if tile_px is None:
        grid = Grid.within(shape, geometry=geometry, window_px=window_px, mirror_px=32)
    else:
        grid = Grid.plan(shape, geometry=geometry, tile_px=tile_px, mirror_px=32)
    rows, piece = min(grid.tile[0], shape[0]), grid.piece_rows
    assert min(rows, 128) <= piece <= 512
    assert grid.counts[0] == 1 or grid.tile[0] % piece == 0


def test_a_tile_of_a_prime_number_of_rows_is_made_smaller_unless_it_is_the_only_one():
    geometry = Geometry(stride_px=1, context_px=33)
    high, low = (Grid.plan((rows, 900), geometry=geometry, tile_px=1009, mirror_px=32) for rows in (9000, 1009))
    assert (high.tile[0], high.piece_rows) == (1000, 500)
    assert (low.tile[0], low.piece_rows) == (1009, 512)


@pytest.mark.parametrize(("side", "most"), [(256, 1.6), (2048, 1.15), (8192, 1.27)])
def test_a_unet_computes_few_pixels_twice(side, most):
    """With the windows that a U-Net 32 gets by default: 2.8 million pixels of 4 GB."""
    unet = Geometry(stride_px=16, context_px=94)
    grid = Grid.within((side, side), geometry=unet, window_px=2_800_000, mirror_px=MIRROR_PX)
    assert grid.redundancy <= most


@pytest.mark.parametrize(
    ("geometry", "mirror_px", "surround_px"),
    [
        (Geometry(stride_px=16, context_px=94), 32, 32),
        (Geometry(stride_px=16, context_px=94), 33, 48),
        (Geometry(stride_px=16, context_px=94), 500, 96),
        (Geometry(stride_px=16, context_px=94), 0, 0),
        (Geometry(stride_px=1, context_px=7), 32, 7),
        (Geometry(stride_px=16, context_px=94, margin_px=92, remainder_px=12), 0, 96),
        (Geometry(stride_px=16, context_px=None), 32, 0),
    ],
)
def test_the_surround_is_what_is_asked_for_in_whole_strides_within_the_halo(geometry, mirror_px, surround_px):
    assert surround_of(geometry, mirror_px) == surround_px


@given(grid=grids())
def test_a_grid_is_equal_after_json(grid):
    assert Grid.from_dict(json.loads(json.dumps(asdict(grid)))) == grid


def test_the_published_572_pixel_input_gives_384_pixels_of_a_slide():
    valid = Geometry(stride_px=16, context_px=94, margin_px=92, remainder_px=12)
    tile = next(Grid.plan((384, 384), geometry=valid, tile_px=388, mirror_px=32).tiles())
    assert tile.write.shape == (384, 384)
    assert tile.read.shape == (576, 576)
    assert valid.input_px(576) == 572


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": (0, 5)}, "at least one pixel"),
        ({"halo_px": 5}, "halo_px must be a multiple of the stride of 4, got 5"),
        ({"surround_px": 2}, "surround_px must be a multiple of the stride of 4, got 2"),
        ({"surround_px": 8}, "surround_px must be at most the halo of 4, got 8"),
        ({"tile": (6, 8)}, "tile rows must be a multiple of the stride of 4, got 6"),
        ({"tile": (0, 8)}, "a tile has at least one pixel"),
    ],
)
def test_an_impossible_grid_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Grid(**{"shape": (10, 10), "tile": (8, 8), "halo_px": 4, "surround_px": 4, "stride_px": 4} | wrong)
