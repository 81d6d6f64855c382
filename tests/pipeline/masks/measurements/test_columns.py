"""The columns of the table of objects are those of the data dictionary; neighbours and lengths by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from pipeline.masks.measurements.columns import columns_of
from pipeline.masks.measurements.dictionary import DICTIONARY, entry_of, measurements
from pipeline.masks.measurements.neighbours import count_within, nearest
from pipeline.masks.measurements.pixels import measure_pixels
from pipeline.masks.measurements.rings import measure_rings
from pipeline.masks.object_table import measure_objects
from pipeline.settings.measurements import MeasurementsConfig
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import ObjectsConfig
from tests.support.masks import numbered
from tests.support.measurements import slide_of

CLASSES = ["background", "nucleus", "cell"]
EVERYTHING = MeasurementsConfig(
    groups=["shape", "intensity", "stains", "neighbours"],
    positive={0: 1.0, "DAB": 0.1},
    compartments={"body": {"nucleus": "nucleus", "expand_um": 2.0}},
)
MAP = np.zeros((30, 60), np.uint8)
MAP[0:3, 0:3] = MAP[0:3, 20:23] = 1
MAP[10:15, 0:5] = 2


def columns(groups, pixel_size_um=(0.5, 0.5), classes=MAP, channels=("DAPI",), pixels=None, **settings):
    config = MeasurementsConfig(groups=groups, **settings)
    wanted = measurements(config, CLASSES, channels)
    ids = numbered(classes)
    objects = measure_objects(ids, classes)
    planes = len(channels) + 3 * ("stains" in groups)
    slide = slide_of(np.ones((planes, *classes.shape), np.uint8) if pixels is None else pixels)
    how = {"pixel_size_um": pixel_size_um, "stains": "stains" in groups}
    rings = config.compartments.items()
    found = measure_pixels(ids, objects, slide, groups)
    return columns_of(
        wanted,
        objects,
        found,
        {"regions": np.full(len(objects.ids), "slide", dtype=object)},
        rings={name: measure_rings(ids, objects, slide, width_um=one.expand_um, **how) for name, one in rings},
        config=ObjectsConfig(classes=CLASSES, image=ImageConfig(), measurements=config),
        channels=channels,
        pixel_size_um=pixel_size_um,
    )


@pytest.mark.parametrize("pixel_size_um", [None, (0.5, 0.5), (0.5, 0.25)])
@pytest.mark.parametrize("groups", [[], ["shape"], ["intensity"], ["stains"], ["neighbours", "stains", "shape"]])
def test_every_group_has_the_columns_of_the_dictionary(groups, pixel_size_um):
    found = columns(groups, pixel_size_um, channels=(0, "DAPI"))
    listed = measurements(MeasurementsConfig(groups=groups), CLASSES, (0, "DAPI"))
    assert list(found) == [one.column for one in listed]
    assert {len(values) for values in found.values()} == {3}
    without = [name for name, values in found.items() if values.dtype != object and not np.isfinite(values).any()]
    assert not [name for name in without if "_um" not in name and name not in {"neighbours", "orientation_deg"}]


def test_a_name_is_used_once_and_documented():
    listed = measurements(EVERYTHING, CLASSES, [0, "a"])
    for names in ([one.column for one in listed], [one.title for one in listed if one.title]):
        assert len(set(names)) == len(names)
        assert not any("{" in name for name in names)
    assert all(one.about.endswith(".") and "{" not in one.about for one in listed)
    without = {"id", "class", "regions", "holes", "neighbours", "positive_0", "positive_DAB"}
    assert {one.column for one in listed if not one.unit} == without
    assert len(DICTIONARY) < len(listed)
    titles = {one.column: one.title for one in listed}
    assert titles["mean_intensity_0"] == "Channel 0: Mean"
    assert titles["median_intensity_a"] == "a: Median"
    assert titles["sd_intensity_DAB"] == "DAB: Std.Dev."
    assert titles["nearest_cell_um"] == "Distance to cell µm"
    assert titles["body_ring_mean_intensity_a"] == "body ring: a: Mean"
    assert titles["body_mean_intensity_0"] == "body: Channel 0: Mean"
    assert titles["positive_0"] == "Channel 0: Positive"


def test_every_column_finds_its_entry():
    listed = measurements(EVERYTHING, CLASSES, [0, "a_ring"])
    for one in listed:
        found = entry_of(one.column)
        assert (found.column, found.title, found.unit, found.about) == (one.column, one.title, one.unit, one.about)
    assert entry_of("sample") is None


def test_positive_objects_and_compartments_by_hand():
    """A nucleus of 3 x 3 px of 1 µm, and a cell on its right, to which half of the pixels between them are nearer."""
    classes = np.zeros((9, 9), np.uint8)
    classes[3:6, 3:6], classes[:, 8] = 1, 2
    pixels = np.where(classes == 1, 40, 10).astype(np.uint16)[None]
    pixels[0, 1, 3] = 35  # of the ring
    body = {"body": {"nucleus": "nucleus", "expand_um": 2.0}}
    found = columns([], (1.0, 1.0), classes, pixels=pixels, positive={"DAPI": 39.9}, compartments=body)
    assert found["positive_DAPI"].tolist() == [0, 1]  # the cell is the first object
    assert columns([], (1.0, 1.0), classes, pixels=pixels, positive={"DAPI": 40.0})["positive_DAPI"].tolist() == [0, 0]
    around = 3 * 6 + 3 + 4  # two pixels to three sides, one to the right, the four corners
    np.testing.assert_array_equal(found["body_ring_area_um2"], [np.nan, around])
    np.testing.assert_array_equal(found["body_area_um2"], [np.nan, 9 + around])
    np.testing.assert_array_equal(found["body_ring_mean_intensity_DAPI"], [np.nan, 10 + 25 / around])
    np.testing.assert_array_equal(
        found["body_mean_intensity_DAPI"], [np.nan, (9 * 40 + around * 10 + 25) / (9 + around)]
    )
    for place, mean in (("body_ring", 10 + 25 / around), ("body", (9 * 40 + around * 10 + 25) / (9 + around))):
        for threshold, expected in ((mean - 0.01, 1), (mean, 0)):
            scored = {"positive": {"DAPI": threshold}, "score_compartment": {"DAPI": place}, "compartments": body}
            found = columns([], (1.0, 1.0), classes, pixels=pixels, **scored)
            np.testing.assert_array_equal(found["positive_DAPI"], [np.nan, expected])  # the cell has no ring
    assert np.isnan(columns([], None, classes, pixels=pixels, **scored)["positive_DAPI"]).all()
    unsized = columns([], None, classes, pixels=pixels, compartments=body)
    assert np.isnan([values for name, values in unsized.items() if name.startswith("body")]).all()


def test_neighbours_by_hand():
    """Two nuclei around columns 1 and 21 of row 1, a cell around (12, 2)."""
    found = columns(["neighbours"], neighbour_radius_um=10)
    assert found["nearest_nucleus_px"].tolist() == [20, 20, pytest.approx(np.hypot(11, 1))]
    assert found["nearest_nucleus_um"].tolist() == [10, 10, pytest.approx(np.hypot(11, 1) / 2)]
    assert np.isnan(found["nearest_cell_px"]).tolist() == [False, False, True]
    assert found["neighbours"].tolist() == [2, 1, 1]  # the one at 10 µm counts


def test_distances_in_um_take_both_sides_of_a_pixel():
    found = columns(["neighbours"], (0.5, 0.25), neighbour_radius_um=5)
    assert found["nearest_nucleus_um"].tolist() == [5, 5, pytest.approx(np.hypot(5.5, 0.25))]
    assert found["neighbours"].tolist() == [1, 1, 0]


def test_lengths_in_um_are_those_of_square_pixels():
    found = columns(["shape"])
    np.testing.assert_allclose(found["max_feret_um"], found["max_feret_px"] / 2)
    assert found["perimeter_um"][0] == found["perimeter_px"][0] / 2
    assert np.isnan(columns(["shape"], (0.5, 0.25))["perimeter_um"]).all()
    assert columns(["shape"], (0.5, 0.25))["area_um2"][0] == 9 / 8


places = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.integers(0, 5)))


@given(places=places, radius=st.integers(0, 5), data=st.data())
def test_neighbours_are_those_of_all_distances(places, radius, data):
    classes = data.draw(arrays(np.uint8, len(places), elements=st.integers(1, 2)))
    distances = cdist(places, places)
    assert count_within(places, radius).tolist() == ((distances <= radius).sum(axis=1) - 1).tolist()
    np.fill_diagonal(distances, np.inf)
    for number in (1, 2):
        least = distances[:, classes == number].min(axis=1, initial=np.inf)
        np.testing.assert_allclose(nearest(places, classes, number), np.where(np.isinf(least), np.nan, least))
