"""Sums over blocks equal those of scikit-image for the whole image, and polygons cover their objects."""

import itertools
import tracemalloc

import dask
import numpy as np
import pytest
import skimage.draw
import skimage.measure
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.base.arrays import LazyArray
from pipeline.masks.object_table import _add, _grown, _sum_up, _table, _totals_dtype, measure_objects, trace_objects
from tests.support.masks import blobs, numbered, signed_area

CLASSES = ["background", "nucleus", "cell"]


def measured(classes, block_px=(512, 8192), instances=None):
    return measure_objects(numbered(classes) if instances is None else instances, classes, block_px=block_px)


def traced(classes, block_px=(512, 8192)):
    """The rings of every object, as lists, by id."""
    table = measured(classes)
    outlines = trace_objects(numbered(classes), table, block_px=block_px)
    return {int(table.ids[index]): [ring.tolist() for ring in rings] for index, rings in outlines}


def filled(rings, shape):
    """Pixels whose centres are inside by the even-odd rule, with a ray to the left that crosses upright sides."""
    crossed = np.zeros((shape[0], shape[1] + 1), dtype=int)
    for ring in rings:
        for (x, y), (next_x, next_y) in itertools.pairwise(ring):
            if x == next_x:
                crossed[min(y, next_y) : max(y, next_y), x] += 1
    return np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1


def assert_valid(rings, area):
    """One exterior, holes in it, closed, upright and level sides by turns, no point twice in a ring."""
    areas = [signed_area(ring) for ring in rings]
    assert areas[0] > 0
    assert all(hole < 0 for hole in areas[1:])
    assert sum(areas) == area
    for ring in rings:
        assert ring[0] == ring[-1]
        assert len({tuple(point) for point in ring}) == len(ring) - 1
        level = np.diff(ring, axis=0)[:, 1] == 0
        assert ((np.diff(ring, axis=0) == 0).sum(axis=1) == 1).all()
        assert (level != np.roll(level, 1)).all()


def assert_equal_to_regionprops(table, classes):
    expected = skimage.measure.regionprops(numbered(classes).astype(np.int64))
    assert table.ids.tolist() == [region.label for region in expected]
    assert table.areas_px.tolist() == [region.area for region in expected]
    assert table.boxes_px.tolist() == [list(region.bbox) for region in expected]
    assert table.classes.tolist() == [classes[tuple(region.coords[0])] for region in expected]
    np.testing.assert_allclose(table.centroids_px, [region.centroid for region in expected], rtol=1e-12)
    # Squares, 1 - l2 / l1: of a round object regionprops takes the root of a rounding error of 1e-16.
    expected_squares = np.square([region.eccentricity for region in expected])
    np.testing.assert_allclose(table.eccentricities**2, expected_squares, rtol=1e-9, atol=1e-12)
    axes = np.array([[region.axis_major_length, region.axis_minor_length] for region in expected])
    np.testing.assert_allclose(table.axes_px**2, axes**2, rtol=1e-9, atol=1e-9)
    turned = table.orientations_deg - np.degrees([region.orientation for region in expected])
    has_axis = table.eccentricities > 1e-3  # regionprops says -45° of a circle
    np.testing.assert_allclose((turned[has_axis] + 90) % 180, 90, atol=1e-6)  # -90° is 90°
    assert np.isnan(table.orientations_deg[table.eccentricities == 0]).all()


@pytest.mark.parametrize("block_px", [(7, 11), (64, 1000), (1, 1000), (512, 8192)])
def test_blobs_across_many_blocks_measure_as_in_the_whole(generator, block_px):
    classes = blobs(generator, (150, 170))
    table = measured(classes, block_px)
    assert len(table.ids) > 20
    assert_equal_to_regionprops(table, classes)


threads = st.sampled_from([1, 2, 4])
small_maps = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2))


@given(classes=small_maps, rows=st.integers(1, 5), columns=st.integers(1, 5), threads=threads)
def test_any_small_map_measures_as_in_the_whole(classes, rows, columns, threads):
    with dask.config.set(num_workers=threads):
        table = measured(classes, (rows, columns))
    if classes.any():
        assert_equal_to_regionprops(table, classes)
    else:
        assert len(table.ids) == 0


def test_sums_beyond_64_bits_are_exact():
    """A rectangle of 200 x 100,000 px from row 1,000,000 on, and a small object as far away."""
    block = np.ones((100, 100_000), dtype=np.uint32)
    totals = _grown(np.zeros(0, _totals_dtype()), 3)

    def add(numbers, *corner):
        region = tuple(slice(start, start + length) for start, length in zip(corner, numbers.shape, strict=True))
        _add(totals, _sum_up(numbers, numbers.astype(np.uint8), region))

    for top in (1_000_000, 1_000_100):
        add(block, top, 0)
    small = np.array([[2, 2, 0], [2, 2, 2]], dtype=np.uint32)
    add(small, 1_000_000, 1_000_000)
    squares = 100_000 * sum(row**2 for row in range(1_000_000, 1_000_200))
    assert squares > 2**64
    assert int(totals["high"][1, 0]) * 2**32 + int(totals["low"][1, 0]) == squares
    table = _table(totals)
    assert table.centroids_px[0].tolist() == [1_000_099.5, 49_999.5]
    near = measured((small > 0).astype(np.uint8))
    expected = [(1 - (200**2 - 1) / (100_000**2 - 1)) ** 0.5, near.eccentricities[0]]
    np.testing.assert_allclose(table.eccentricities, expected, rtol=1e-15)


def test_ids_above_the_number_of_pixels_are_refused():
    classes = np.ones((2, 3), np.uint8)
    with pytest.raises(ValueError, match="object ids go up to 7 in 2 x 3 px, but must be numbered from 1"):
        measured(classes, instances=np.full((2, 3), 7, np.uint32))


def test_ids_may_have_gaps():
    classes = np.array([[1, 0, 2, 2]], np.uint8)
    table = measured(classes, instances=np.array([[2, 0, 4, 4]], np.uint32))
    assert (table.ids.tolist(), table.areas_px.tolist(), table.classes.tolist()) == ([2, 4], [1, 2], [1, 2])


def pixel(x, y):
    return [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1], [x, y]]


RING = [[[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]], pixel(1, 1)[::-1]]


@pytest.mark.parametrize(
    ("classes", "rings"),
    [
        ([[0, 0, 0, 0], [0, 0, 1, 0]], {1: [pixel(2, 1)]}),
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], {1: RING}),
        ([[1, 1, 1], [1, 2, 1], [1, 1, 1]], {1: RING, 2: [pixel(1, 1)]}),  # the outline of the hole
        ([[1, 0], [0, 1]], {1: [pixel(0, 0)], 2: [pixel(1, 1)]}),  # diagonal neighbours are two objects
    ],
)
def test_rings_by_hand(classes, rings):
    assert traced(np.array(classes, np.uint8)) == rings


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(
    ("classes", "areas"),
    [
        ([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], [16, -1, -1]),  # holes stay two
        ([[0, 1, 1], [1, 0, 1], [1, 1, 1]], [8, -1]),  # a bay is closed
    ],
)
def test_pixels_that_touch_by_a_corner_are_apart(classes, areas, turns):
    (rings,) = traced(np.rot90(np.array(classes, np.uint8), turns)).values()
    assert [signed_area(ring) for ring in rings] == areas
    assert_valid(rings, sum(areas))


@pytest.mark.parametrize("rows", [1, 2, 3, 10])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_an_object_that_is_the_whole_slide_touches_its_borders(rows, columns):
    assert traced(np.ones((6, 5), np.uint8), (rows, columns)) == {1: [[[0, 0], [5, 0], [5, 6], [0, 6], [0, 0]]]}


@given(classes=small_maps, block_px=st.tuples(st.integers(1, 13), st.integers(1, 13)), threads=threads)
def test_any_polygon_is_valid_and_covers_its_object(classes, block_px, threads):
    with dask.config.set(num_workers=threads):
        found = traced(classes, block_px)
    numbers = numbered(classes)
    assert sorted(found) == list(range(1, numbers.max() + 1))
    for number, rings in found.items():
        assert_valid(rings, np.count_nonzero(numbers == number))
        np.testing.assert_array_equal(filled(rings, classes.shape), numbers == number)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("block_px", [(1, 90), (5, 17), (64, 30), (512, 8192)])
def test_polygons_across_many_blocks_cover_their_objects(generator, block_px, threads):
    classes = blobs(generator, (130, 90), sigma=1)
    with dask.config.set(num_workers=threads):
        found = traced(classes, block_px)
    assert found == traced(classes)
    assert list(found) == list(traced(classes))
    drawn = np.zeros(classes.shape, np.uint32)
    for number, rings in found.items():
        inside = filled(rings, classes.shape)
        assert_valid(rings, np.count_nonzero(inside))
        assert not drawn[inside].any()
        drawn[inside] = number
    np.testing.assert_array_equal(drawn, numbered(classes))


def test_scikit_image_draws_the_same(generator):
    """It tests pixel centres, which are half a pixel away from our rings."""
    classes = blobs(generator, (60, 70), sigma=2)
    for number, rings in traced(classes).items():
        drawn = np.zeros(classes.shape, dtype=bool)
        for ring in rings:
            x, y = np.asarray(ring).T - 0.5
            drawn[skimage.draw.polygon(y, x, classes.shape)] ^= True
        np.testing.assert_array_equal(drawn, numbered(classes) == number)


def stripes(rows):
    """Object ids without pixels in memory: a stripe in every 64 rows, and one down the left side."""

    def read(down, across):
        row, column = np.arange(down.start, down.stop)[:, None], np.arange(across.start, across.stop)
        stripe = np.where(row % 64 < 32, 2 + row // 64, 0)
        return np.where(column < 5, 1, np.where(column < 10, 0, stripe)).astype(np.uint32)

    return LazyArray((rows, 600), np.dtype(np.uint32), read)


def peak_bytes(rows):
    instances = stripes(rows)
    tracemalloc.start()
    table = measure_objects(instances, instances, block_px=(64, 600))
    sides = [len(rings[0]) for _, rings in trace_objects(instances, table, block_px=(64, 600))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sides == [5] * (1 + rows // 64)
    return peak


def test_memory_grows_with_threads_and_blocks_but_not_with_the_number_of_rows():
    """Each thread has a block, and at most one more is finished and waits for its turn."""
    with dask.config.set(num_workers=1):
        of_a_block = peak_bytes(64 * 4)
        assert peak_bytes(64 * 200) < 1.1 * of_a_block
    for threads in (2, 4):
        with dask.config.set(num_workers=threads):
            assert peak_bytes(64 * 200) < (threads + 1) * of_a_block
