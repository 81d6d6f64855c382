"""Pixels and objects of regions equal those that Shapely finds one by one; disjoint regions add up to the slide."""

import numpy as np
import pandas as pd
import pytest
import shapely
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

from pipeline.masks.measurements.dictionary import has_mean
from pipeline.masks.region_table import find_members, region_table, regions_of_objects
from pipeline.slides.regions import Regions
from tests.support.masks import blobs, numbered
from tests.support.outlines import areas, centres_in

SHAPE = (60, 80)
CLASSES = ["background", "cell", "debris"]


def regions_of(drawn):
    names = [f"r{number}" for number in range(len(drawn))]
    return Regions(names=names, areas=[list(shapely.get_parts(area)) for area in drawn])


def centroids_of(classes):
    found = skimage.measure.regionprops(numbered(classes).astype(int))
    return np.array([one.centroid for one in found]).reshape(-1, 2), np.array(
        [classes[*one.coords[0]] for one in found]
    )


@settings(max_examples=50)
@given(drawn=areas(SHAPE), seed=st.integers(0, 2**32 - 1), block_px=st.sampled_from([(7, 11), (60, 80), (64, 16)]))
def test_pixels_and_objects_equal_those_that_shapely_finds_one_by_one(drawn, seed, block_px):
    classes = blobs(np.random.default_rng(seed), SHAPE, sigma=2)
    centroids, _ = centroids_of(classes)
    found = find_members(classes, centroids, regions_of(drawn), num_classes=3, block_px=block_px)
    for number, area in enumerate(drawn):
        inside = centres_in(area, SHAPE)
        np.testing.assert_array_equal(found.region_px[number], np.bincount(classes[inside], minlength=3))
        row, column = np.floor(centroids + 0.5).astype(int).T
        expected = np.flatnonzero(shapely.contains_xy(area, column + 0.5, row + 0.5))
        np.testing.assert_array_equal(found.objects[number], expected)
    np.testing.assert_array_equal(found.class_px, np.bincount(classes.ravel(), minlength=3))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_regions_that_share_no_pixel_and_cover_the_slide_add_up_to_it(seed):
    """Cells of a Voronoi diagram: neighbours share their sides, which centres may lie on."""
    generator = np.random.default_rng(seed)
    points = shapely.MultiPoint(generator.integers(0, np.array(SHAPE[::-1]) + 1, (6, 2)) + generator.choice([0, 0.5]))
    slide = box(0, 0, SHAPE[1], SHAPE[0])
    cells = [cell & slide for cell in shapely.voronoi_polygons(points, extend_to=slide).geoms]
    cells = [cell for cell in cells if cell.area > 0]
    classes = blobs(generator, SHAPE, sigma=2)
    centroids, kinds = centroids_of(classes)
    found = find_members(classes, centroids, regions_of(cells), num_classes=3, block_px=(16, 32))
    np.testing.assert_array_equal(found.region_px.sum(axis=0), found.class_px)
    np.testing.assert_array_equal(np.sort(np.concatenate(found.objects)), np.arange(len(centroids)))
    columns = {"class": np.array(CLASSES, dtype=object)[kinds], "area_px": np.ones(len(kinds))}
    table = region_table(found, columns, CLASSES, (0.5, 0.5))
    whole = region_table(find_members(classes, centroids, None, num_classes=3), columns, CLASSES, (0.5, 0.5))
    summed = table.groupby("class", sort=False)[["objects", "area_px", "area_mm2", "region_area_px"]].sum()
    for column in ("area_px", "area_mm2", "region_area_px"):
        np.testing.assert_allclose(summed[column], whole[column])
    assert summed["objects"].tolist()[1:] == whole["objects"].tolist()[1:]


@pytest.mark.parametrize(
    "area",
    [
        Polygon(box(0, 0, 40, 40).exterior, [box(10, 10, 20, 30).exterior]),
        MultiPolygon([box(0, 0, 10, 60), box(30, 5, 40, 6)]),
        shapely.union(box(3, 3, 20, 9), box(10, 5, 80, 60)),
    ],
    ids=["hole", "parts", "overlap"],
)
def test_areas_along_the_sides_of_pixels_are_those_of_shapely(area):
    found = find_members(np.zeros(SHAPE, np.uint8), np.empty((0, 2)), regions_of([area]), num_classes=1)
    assert found.region_px.tolist() == [[area.area]]


def test_a_table_by_hand():
    """A left half with two cells and one piece of debris, and all of it; cells of 2, 4 and 9 px."""
    classes = np.zeros((10, 20), np.uint8)
    # By place: rows, columns, class
    objects = {(0, 0): (1, 2, 1), (4, 2): (2, 2, 1), (8, 5): (1, 1, 2), (2, 14): (3, 3, 1)}
    for (row, column), (rows, columns, kind) in objects.items():
        classes[row : row + rows, column : column + columns] = kind
    order = sorted(objects)
    centroids = np.array([[r + (objects[r, c][0] - 1) / 2, c + (objects[r, c][1] - 1) / 2] for r, c in order])
    columns = {
        "id": np.arange(1, 5),
        "class": np.array([CLASSES[objects[place][2]] for place in order], dtype=object),
        "area_px": np.array([objects[place][0] * objects[place][1] for place in order]),
        "centroid_row_px": centroids[:, 0],
        "eccentricity": np.array([0.5, 0.25, np.nan, 1.0]),
    }
    regions = Regions(names=["left", "=all"], areas=[[box(0, 0, 10, 10)], [box(0, 0, 20, 10)]])
    members = find_members(classes, centroids, regions, num_classes=3)
    assert regions_of_objects(members, 4).tolist() == ["left;=all", "'=all", "left;=all", "left;=all"]
    table = region_table(members, columns, CLASSES, (1000.0, 500.0))
    assert list(table.columns) == [
        *("region", "class", "region_area_px", "region_area_mm2", "objects", "objects_per_mm2"),
        *("area_px", "area_mm2", "area_fraction", "area_px_mean", "area_px_sd", "eccentricity_mean", "eccentricity_sd"),
    ]
    assert table["region"].tolist() == ["left"] * 3 + ["'=all"] * 3
    assert table["class"].tolist() == CLASSES * 2
    background, cell, debris = table.iloc[:3].to_dict("records")
    assert (cell["region_area_px"], cell["region_area_mm2"], cell["objects"]) == (100, 50.0, 2)
    assert (cell["objects_per_mm2"], cell["area_px"], cell["area_mm2"], cell["area_fraction"]) == (0.04, 6, 3.0, 0.06)
    assert (cell["area_px_mean"], cell["area_px_sd"]) == (3, pytest.approx(2**0.5))
    assert (cell["eccentricity_mean"], debris["area_px_mean"], debris["objects"]) == (0.5, 1, 1)
    assert pd.isna(cell["eccentricity_sd"])  # of one value, since the other has none
    assert pd.isna(debris["area_px_sd"])
    assert pd.isna([background["objects"], background["objects_per_mm2"], background["area_px_mean"]]).all()
    assert background["area_px"] == 93
    unsized = region_table(members, columns, CLASSES, None)
    assert unsized[["region_area_mm2", "objects_per_mm2", "area_mm2"]].isna().all(axis=None)
    assert unsized["area_fraction"].tolist() == table["area_fraction"].tolist()


def test_positive_objects_are_counted():
    members = find_members(np.zeros((4, 6), np.uint8), np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), None, num_classes=3)
    columns = {
        "class": np.array(["cell", "cell", "cell", "debris"], dtype=object),
        "positive_Ki67": np.array([1, 0, 1, 0]),
        "area_px": np.ones(4),
    }
    table = region_table(members, columns, CLASSES, None)
    assert list(table.columns)[-4:-2] == ["positive_Ki67", "positive_Ki67_share"]
    assert table["positive_Ki67"].tolist() == [pd.NA, 2, 0]
    np.testing.assert_array_equal(table["positive_Ki67_share"], [np.nan, 2 / 3, 0])
    members = find_members(np.zeros((4, 6), np.uint8), np.array([[0, 0]]), None, num_classes=3)
    table = region_table(members, {name: values[:1] for name, values in columns.items()}, CLASSES, None)
    np.testing.assert_array_equal(table["positive_Ki67_share"], [np.nan, 1, np.nan])  # no debris
    assert table["positive_Ki67"].tolist() == [pd.NA, 1, 0]


def test_objects_of_which_it_is_not_known_are_neither_positive_nor_negative():
    """As those without the compartment that decides."""
    members = find_members(np.zeros((4, 6), np.uint8), np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), None, num_classes=3)
    columns = {
        "class": np.array(["cell", "cell", "cell", "debris"], dtype=object),
        "positive_Ki67": np.array([1, 0, np.nan, np.nan]),
        "area_px": np.ones(4),
    }
    table = region_table(members, columns, CLASSES, None)
    assert table["objects"].tolist() == [pd.NA, 3, 1]
    assert table["positive_Ki67"].tolist() == [pd.NA, 1, pd.NA]
    np.testing.assert_array_equal(table["positive_Ki67_share"], [np.nan, 0.5, np.nan])


def test_a_slide_without_regions_is_one_region():
    members = find_members(np.ones((3, 4), np.uint8), np.array([[1.0, 1.5]]), None, num_classes=2)
    assert (members.names, members.region_px.tolist(), members.objects[0].tolist()) == (["slide"], [[0, 12]], [0])


def test_a_class_that_is_not_configured_is_an_error():
    with pytest.raises(ValueError, match=r"class 7 .*2 classes"):
        find_members(np.full((3, 4), 7, np.uint8), np.empty((0, 2)), None, num_classes=2)


def test_numbers_and_places_have_no_mean():
    named = ["id", "centroid_row_px", "top_px", "right_px", "orientation_deg", "positive_a"]
    assert not any(map(has_mean, named))
    assert all(map(has_mean, ["area_px", "mean_intensity_0", "top_px_share", "eccentricity"]))
