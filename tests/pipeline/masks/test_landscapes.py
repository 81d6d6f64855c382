"""Cells that fill the image merge where their common border is low on average: by hand, and against every pair."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.masks.basins import find_basins, merge_basins
from pipeline.masks.landscapes import merge_low_borders, part_plane
from tests.support.masks import by_first_pixel, landscape


def merged_pair_by_pair(parts, heights, below):
    """Look at all pairs of pixels again for each merge: the lowest mean first, of equal ones the first in the image."""
    parts = by_first_pixel(parts)
    sides = [(np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])]
    while True:
        borders = {}
        for before, after in sides:
            for one, other, height in zip(
                parts[before].flat, parts[after].flat, np.maximum(heights[before], heights[after]).flat, strict=True
            ):
                if one != other:
                    borders.setdefault((min(one, other), max(one, other)), []).append(int(height))
        means = {pair: Fraction(sum(values), len(values)) for pair, values in borders.items()}
        low = [(mean, *pair) for pair, mean in means.items() if mean < below]
        if not low:
            return parts
        _, one, other = min(low)
        parts = by_first_pixel(np.where(parts == other, one, parts))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    block_px=st.tuples(st.integers(1, 35), st.integers(1, 35)),
    sigma=st.sampled_from([0.5, 1, 2]),
    highest=st.sampled_from([3, 100]),
)
def test_blocks_merge_as_the_pairs_of_pixels_of_the_whole(seed, shape, block_px, tmp_path_factory, *, sigma, highest):
    """With heights of four values, many borders are equally low."""
    generator = np.random.default_rng(seed)
    heights, _ = landscape(generator, shape, sigma=sigma, highest=highest)
    scratch = tmp_path_factory.mktemp("scratch")
    basins = find_basins(heights, np.ones(shape, np.uint8), everywhere=True, scratch=scratch, block_px=block_px)
    parts = merge_basins(basins, lambda height, lowest: height - lowest < highest / 20)
    numbers, below = basins.numbers[:], 0.6 * highest
    found = by_first_pixel(merge_low_borders(basins, parts, below=below)[numbers])
    np.testing.assert_array_equal(found, merged_pair_by_pair(parts[numbers], heights, below))


def cells_of(membrane, scratch, **options):
    basins, parts = part_plane(membrane, (membrane < 0.5).astype(np.uint8), scratch=scratch, **options)
    return by_first_pixel(parts[basins.numbers[:]])


@pytest.mark.parametrize(("gap_px", "cells"), [(0, 2), (8, 2), (20, 2), (32, 1), (40, 1)])
def test_two_cells_are_one_only_where_most_of_their_membrane_is_missing(tmp_path, gap_px, cells):
    """A membrane of 40 px, of which a part is not seen: its mean is below 0.4 if more than about 24 px are missing."""
    membrane = np.zeros((40, 60), np.float32)
    membrane[gap_px:, 28:31] = 1
    membrane[:gap_px, 28:31] = 0.05
    assert cells_of(membrane, tmp_path, border=0.4).max() == cells


def test_the_mean_of_a_border_decides_and_the_limit_itself_divides(tmp_path):
    """A membrane as high along its whole length, and so wide that its crest is not smoothed."""
    membrane = np.zeros((12, 60), np.float32)
    membrane[:, 15:26] = 0.5
    found = {border: cells_of(membrane, tmp_path / str(border), border=border).max() for border in (0.49, 0.51)}
    assert found == {0.49: 2, 0.51: 1}
