"""Basins found and merged by block are those of a flood of the whole image, pixel by pixel, whatever the blocks."""

import dask
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, generate_binary_structure
from scipy.ndimage import label as connected
from skimage.measure import label
from skimage.morphology import local_minima, reconstruction

from pipeline.masks import basins as stage
from pipeline.masks.basins import HIGHEST, find_basins, merge_basins, merge_small
from pipeline.masks.instances import mask_images
from pipeline.settings.masks import MaskConfig
from tests.support.masks import by_first_pixel, landscape

LEVEL, DEPTH = 100, 20


def merge_at_seeds(height, lowest):
    return height < LEVEL or lowest >= LEVEL


def merge_shallow(height, lowest):
    return height - lowest < DEPTH


def flood(heights, group, rule):
    """Every pixel is joined to where it drains; then pairs of neighbours are visited in their order."""
    values, of = heights.ravel().tolist(), group.ravel().tolist()
    number = np.arange(heights.size).reshape(heights.shape)
    beside = [np.stack([number[:, :-1], number[:, 1:]], axis=-1), np.stack([number[:-1], number[1:]], axis=-1)]
    pairs = [tuple(pair) for side in beside for pair in side.reshape(-1, 2).tolist()]
    pairs = [(one, other) for one, other in pairs if of[one] == of[other] > 0]
    parent, lowest = list(range(heights.size)), values.copy()

    def find(pixel):
        while parent[pixel] != pixel:
            pixel = parent[pixel]
        return pixel

    def join(one, other):
        low, high = find(one), find(other)
        parent[high], lowest[low] = low, min(lowest[low], lowest[high])

    def order(pair):
        low, high = sorted(pair, key=lambda pixel: (values[pixel], pixel))
        return values[high], high, low

    target = list(range(heights.size))
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            target[one] = min(target[one], other, key=lambda pixel: (values[pixel], pixel))
    for pixel, other in enumerate(target):
        join(pixel, other)
    for one, other in sorted(pairs, key=order):
        if find(one) != find(other) and rule(order((one, other))[0], max(lowest[find(one)], lowest[find(other)])):
            join(one, other)
    found = np.array([find(pixel) + 1 if of[pixel] else 0 for pixel in range(heights.size)])
    return by_first_pixel(found.reshape(heights.shape))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    block_px=st.tuples(st.integers(1, 45), st.integers(1, 45)),
    sigma=st.sampled_from([0, 1, 2]),
    highest=st.sampled_from([2, 255, HIGHEST]),
    classes=st.integers(1, 2),
    everywhere=st.booleans(),
    rule=st.sampled_from([merge_at_seeds, merge_shallow]),
)
def test_blocks_equal_the_whole(seed, shape, block_px, tmp_path_factory, *, sigma, highest, classes, everywhere, rule):
    """With heights of three values, most pixels are ties."""
    generator = np.random.default_rng(seed)
    heights, kinds = landscape(generator, shape, sigma=sigma, highest=highest, classes=classes)
    scratch = tmp_path_factory.mktemp("scratch")
    with dask.config.set(num_workers=1 + seed % 2):
        basins = find_basins(heights, kinds, everywhere=everywhere, scratch=scratch, block_px=block_px)
    found = by_first_pixel(merge_basins(basins, rule)[basins.numbers[:]])
    np.testing.assert_array_equal(found, flood(heights, np.ones_like(kinds) if everywhere else kinds, rule))
    assert label(found, connectivity=1, background=0).max() == found.max()  # as outlines need it
    assert basins.table["area"].sum() == (found > 0).sum()
    if everywhere:
        assert (basins.table["class"][basins.numbers[:]] >= (kinds > 0)).all()
    else:
        np.testing.assert_array_equal(basins.table["class"][basins.numbers[:]], kinds)


def test_shallow_basins_merge_as_the_minima_of_a_reconstruction_do(tmp_path, generator):
    """As many cells are left as there are minima that are at least so deep (h-minima), each with one of them."""
    heights, kinds = landscape(generator, (300, 280), sigma=4, highest=1000)
    basins = find_basins(heights, kinds, everywhere=True, scratch=tmp_path, block_px=(64, 100))
    parts = merge_basins(basins, lambda height, lowest: height - lowest < 100)[basins.numbers[:]]
    filled = reconstruction(heights + 99.5, heights, method="erosion", footprint=generate_binary_structure(2, 1))
    minima, _ = connected(local_minima(filled, connectivity=1))
    pairs = np.unique(np.stack([parts[minima > 0], minima[minima > 0]]), axis=1)
    assert pairs.shape[1] == minima.max() == len(np.unique(parts)) > 10


def two_cells():
    """Two discs that touch, the distance of each, and a network that sees one class."""
    row, column = np.ogrid[:21, :42]
    both = [(row - 10) ** 2 + (column - centre) ** 2 <= 100 for centre in (10, 31)]
    labels = both[0] | both[1]
    distance = sum(distance_transform_edt(one) / 10 for one in both)
    return labels.astype(np.uint8), np.rint(255 * distance.clip(0, 1)).astype(np.uint8)


def objects_of(labels, distance, scratch, **config):
    masks = MaskConfig(instances="distance", **config)
    return mask_images(labels, None, masks, distance=distance, pixel_um2=1.0, scratch=scratch)["instances"][:]


def test_touching_cells_come_apart_where_the_distance_is_least(tmp_path):
    labels, distance = two_cells()
    found = objects_of(labels, distance, tmp_path)
    np.testing.assert_array_equal(found, np.where(np.arange(42) < 21, 1, 2) * labels)


def test_a_seed_is_above_the_threshold_and_parts_without_one_join_the_others(tmp_path):
    labels = np.ones((1, 12), np.uint8)
    distance = np.array([[40, 200, 140, 128, 127, 90, 128, 60, 120, 30, 20, 0]], np.uint8)
    assert objects_of(labels, distance, tmp_path).tolist() == [[1] * 5 + [2] * 7]  # 127.5 is the threshold
    assert objects_of(labels, distance, tmp_path, seed=0.51).max() == 1
    assert objects_of(labels, distance, tmp_path, seed=0.9).max() == 1  # without a seed, a component is one object
    assert objects_of(labels, np.zeros_like(distance), tmp_path).max() == 1
    assert objects_of(labels, distance, tmp_path, neck=0.71).max() == 2  # 90 / 128 = 0.703
    assert objects_of(labels, distance, tmp_path, neck=0.70).max() == 1


def test_a_part_that_is_small_beside_its_neighbour_joins_the_one_with_the_longest_border(tmp_path):
    """A seed of 4 pixels on the border of two large parts, most of its sides at the right one."""
    labels = np.ones((20, 30), np.uint8)
    distance = np.full(labels.shape, 200, np.uint8)
    distance[:, 13] = 10
    distance[8:12, 13:17] = 20
    distance[9:11, 14:16] = 220
    basins = find_basins(255 - distance, labels, everywhere=False, scratch=tmp_path)
    parts = merge_basins(basins, merge_at_seeds)
    assert len(np.unique(parts[1:])) == 3
    left, small, right = (parts[basins.numbers[place]] for place in ((9, 0), (9, 14), (9, 29)))
    joined = merge_small(basins, parts, share=0.1)
    assert len(np.unique(joined[1:])) == 2
    assert joined[small] == joined[right] != joined[left]
    np.testing.assert_array_equal(merge_small(basins, parts, share=0.001), parts)


@pytest.mark.parametrize("instances", ["distance", "partition"])
def test_a_whole_mask_does_not_depend_on_blocks(tmp_path, monkeypatch, generator, instances):
    field = scipy.ndimage.gaussian_filter(generator.random((260, 300)), 3)
    field = ((field - field.min()) / np.ptp(field)).astype(np.float16)
    probabilities = np.stack([1 - field, field])
    labels = (field > 0.4).astype(np.uint8)
    distance = np.rint(255 * field).astype(np.uint8)
    found = []
    for number, block_px in enumerate([(512, 2048), (50, 70), (33, 300)]):
        monkeypatch.setattr(stage.find_basins, "__kwdefaults__", {"block_px": block_px})
        scratch = tmp_path / str(number)
        config = MaskConfig(instances=instances)
        images = mask_images(labels, probabilities, config, distance=distance, pixel_um2=None, scratch=scratch)
        found.append(images["instances"][:])
    assert found[0].max() > 10
    assert found[0].dtype == np.uint32
    np.testing.assert_array_equal(found[0], by_first_pixel(found[0]))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    if instances == "distance":
        np.testing.assert_array_equal(found[0] > 0, labels > 0)
    else:
        assert (found[0] > 0)[labels > 0].all()


def test_a_partition_has_no_gaps_and_no_object_without_its_class(tmp_path):
    """Two cells on each side of a membrane, and a membrane as wide as a cell at the right."""
    membrane = np.zeros((12, 60), np.float32)
    membrane[:, 19:21] = 1
    membrane[:, 40:] = 1
    membrane[:, 50] = 0.6
    probabilities = np.stack([membrane, 1 - membrane]).astype(np.float16)
    labels = (membrane < 0.5).astype(np.uint8)
    images = mask_images(labels, probabilities, MaskConfig(instances="partition"), pixel_um2=None, scratch=tmp_path)
    found = images["instances"][:]
    assert np.unique(found[:, :20]).tolist() == [1]
    assert np.unique(found[:, 20:40]).tolist() == [2]
    assert (found[:, 48:] == 0).all()
    np.testing.assert_array_equal(images["classes"][:], labels)
