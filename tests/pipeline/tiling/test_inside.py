"""What lies in regions, or near them, is computed; hardly anything else is; windows stay those of the whole slide."""

import math

import numpy as np
import pytest
import scipy.ndimage
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from models.base.geometry import Geometry
from pipeline.tiling.grid import Grid
from pipeline.tiling.inside import MARGIN_PX, parts_inside
from pipeline.tiling.plan import SlidePlan
from tests.support.outlines import areas, centres_in
from tests.support.prediction import plan_of

SHAPE = (300, 410)


def grid_of(shape, tile_px, stride_px=16, context_px=40):
    geometry = Geometry(stride_px=stride_px, context_px=context_px)
    return Grid.plan(shape, geometry=geometry, tile_px=tile_px, mirror_px=16)


@settings(max_examples=50)
@given(drawn=areas(SHAPE), tile_px=st.sampled_from([16, 64, 112, 500]), stride_px=st.sampled_from([1, 8, 16]))
def test_every_pixel_closer_than_the_margin_is_computed(drawn, tile_px, stride_px):
    grid = grid_of(SHAPE, tile_px, stride_px)
    parts = parts_inside([part for area in drawn for part in shapely.get_parts(area)], grid)
    tiles = list(grid.tiles())
    computed = np.zeros(SHAPE, dtype=bool)
    for number, part in parts.items():
        write = tiles[number].write
        assert write.top <= part.top < part.bottom <= write.bottom
        assert write.left <= part.left < part.right <= write.right
        assert (part.top - write.top) % stride_px == (part.left - write.left) % stride_px == 0
        computed[part.slices] = True
    inside = np.any([centres_in(area, SHAPE) for area in drawn], axis=0)
    near = scipy.ndimage.maximum_filter(inside, size=2 * MARGIN_PX - 1, mode="constant")
    assert computed[near].all()


@given(drawn=areas(SHAPE), tile_px=st.sampled_from([64, 112, 500]))
def test_a_narrowed_tile_is_a_window_like_any_other(drawn, tile_px):
    """It begins and ends on whole strides, with the halo around its part, or with the surround."""
    grid = grid_of(SHAPE, tile_px)
    plan = plan_of(grid, regions=[mapping(part) for area in drawn for part in shapely.get_parts(area)])
    plan = SlidePlan.from_dict(plan.to_dict())
    tiles = list(plan.tiles())
    assert plan.count == len(tiles)
    for tile in tiles:
        for start, stop, first, last, end in (
            (tile.read.top, tile.read.bottom, tile.part.top, tile.part.bottom, math.ceil(SHAPE[0] / 16) * 16),
            (tile.read.left, tile.read.right, tile.part.left, tile.part.right, math.ceil(SHAPE[1] / 16) * 16),
        ):
            assert start == max(first - grid.halo_px, -grid.surround_px)
            assert start % 16 == stop % 16 == 0
            assert min(last + grid.halo_px, end + grid.surround_px) <= stop <= end + grid.surround_px


@pytest.mark.parametrize("tile_px", [512, 1024, 4096])
def test_three_percent_of_a_slide_take_few_pixels(tile_px):
    """Of 20,000 x 20,000 px, in one region and in twelve, with the halo of a U-Net of depth 4."""
    shape, geometry = (20_000, 20_000), Geometry(stride_px=16, context_px=94)
    grid = Grid.plan(shape, geometry=geometry, tile_px=tile_px, mirror_px=16)
    whole = plan_of(grid).window_px
    one = [box(5000, 7000, 5000 + 3464, 7000 + 3464)]
    twelve = [box(x, y, x + 1000, y + 1000) for x in (1100, 7300, 12_900, 17_000) for y in (900, 8800, 14_700)]
    for regions, most in ((one, 0.04), (twelve, 0.055)):
        plan = plan_of(grid, regions=[mapping(region) for region in regions])
        assert sum(region.area for region in regions) == pytest.approx(0.03 * math.prod(shape), rel=1e-3)
        assert plan.window_px < most * whole


def test_regions_and_glass_both_leave_tiles_out():
    grid = grid_of((256, 256), 64)
    tissue = [(0, 8)]  # the upper half
    plan = plan_of(grid, tissue=tissue, regions=[mapping(box(0, 0, 20, 256))])
    assert [(tile.write.top, tile.write.left) for tile in plan.tiles()] == [(0, 0), (0, 64), (64, 0), (64, 64)]
    assert len(list(plan.glass())) == plan.grid.count - 4
    assert [tile.write.left for tile in plan.without(3).tiles()] == [64]


def test_tiles_that_are_blended_are_all_computed():
    geometry = Geometry(stride_px=16, context_px=None)
    grid = Grid.plan((256, 256), geometry=geometry, tile_px=64, mirror_px=16)
    plan = plan_of(grid, regions=[mapping(box(0, 0, 20, 20))])
    assert list(plan.tiles()) == list(grid.tiles())
