"""Named areas of a slide: names, numbers, holes and parts; and one clear line for each file that is none of its."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from roifile import ImagejRoi, roiwrite
from shapely.geometry import box

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.regions import read_regions, union_of
from pipeline.slides.slide import open_slide
from tests.support.outlines import areas, centres_in, write_outlines

SHAPE = (60, 80)


@pytest.fixture
def regions_of(tmp_path):
    """Read a file of regions of a slide of 60 x 80 px."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(SHAPE, np.uint8), resolution=(2e4, 2e4), resolutionunit="CENTIMETER")

    def read(path, **view):
        with open_slide(tmp_path / "a.tif", memory_mb=100, view=ImageConfig(**view)) as slide:
            return read_regions(path, slide, memory_mb=100), slide.shape

    return read


def pixels_of(regions, shape):
    return {
        name: np.asarray(union_of(polygons, shape)[0]) > 0
        for name, polygons in zip(regions.names, regions.areas, strict=True)
    }


@settings(max_examples=25)
@given(drawn=areas(SHAPE))
def test_a_pixel_is_in_the_regions_that_hold_its_centre(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("regions")
    tifffile.imwrite(folder / "a.tif", np.zeros(SHAPE, np.uint8))
    path = write_outlines(folder / "a.geojson", [(f"r{number}", area) for number, area in enumerate(drawn)])
    with open_slide(folder / "a.tif", memory_mb=100) as slide:
        found = pixels_of(read_regions(path, slide, memory_mb=100), SHAPE)
    for number, area in enumerate(drawn):
        np.testing.assert_array_equal(found[f"r{number}"], centres_in(area, SHAPE))


def test_regions_have_the_name_of_their_object_or_class_else_a_free_number(tmp_path, regions_of):
    boxes = [box(10 * n, 0, 10 * n + 5, 5) for n in range(6)]
    path = write_outlines(
        tmp_path / "a.geojson", list(zip(["cortex", None, " ", "3", None, "cortex"], boxes, strict=True))
    )
    content = json.loads(path.read_text())
    content["features"][4]["properties"]["classification"] = {"name": "Tumor"}
    path.write_text(json.dumps(content))
    regions, _ = regions_of(path)
    assert regions.names == ["cortex", "2", "4", "3", "Tumor"]
    assert [len(area) for area in regions.areas] == [2, 1, 1, 1, 1]


def test_rois_of_imagej_keep_their_whole_names(tmp_path, regions_of):
    rois = [ImagejRoi.frompoints(np.array([[5, 5], [25, 5], [25, 25], [5, 25]]), name="gland-1")]
    rois.append(ImagejRoi.frompoints(np.array([[30, 5], [50, 5], [50, 25], [30, 25]]), name="gland-2"))
    roiwrite(tmp_path / "a.zip", rois)
    regions, shape = regions_of(tmp_path / "a.zip")
    assert {name: int(pixels.sum()) for name, pixels in pixels_of(regions, shape).items()} == {
        "gland-1": 400,
        "gland-2": 400,
    }


def test_one_polygon_within_another_of_one_annotation_is_a_hole(tmp_path, regions_of):
    ring = shapely.MultiPolygon([box(0, 0, 20, 20), box(5, 5, 10, 10)])
    regions, shape = regions_of(write_outlines(tmp_path / "a.geojson", {"ring": ring}))
    assert pixels_of(regions, shape)["ring"].sum() == 400 - 25


def test_regions_are_on_the_grid_of_the_view(tmp_path, regions_of):
    """Drawn on the file of half a µm, read at 1 µm."""
    regions, shape = regions_of(write_outlines(tmp_path / "a.geojson", {"a": box(20, 10, 40, 30)}), pixel_size_um=1.0)
    assert shape == (30, 40)
    rows, columns = np.nonzero(pixels_of(regions, shape)["a"])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 10, 19)


def test_what_is_passed_over_is_a_warning(tmp_path, regions_of):
    regions, _ = regions_of(write_outlines(tmp_path / "a.geojson", [("a", box(0, 0, 5, 5)), ("b", None)]))
    assert (regions.names, len(regions.warnings)) == (["a"], 1)
    assert "annotation 2 has no geometry" in regions.warnings[0]


BOWTIE = {"type": "Polygon", "coordinates": [[[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]]}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([("a", box(0, 0, 500, 40))], "spans rows 0 to 40 and columns 0 to 500, its image has 60 rows and 80 columns"),
        (
            [("a", box(0, 0, 5, 5)), ("b", BOWTIE)],
            r"annotation 2.* is no region: its outline crosses or touches itself at column and row 10 10; draw",
        ),
        ([], "holds no region .*; draw one, or remove the file"),
        ([("a;b", box(0, 0, 5, 5))], "annotation 1 is named 'a;b'; names of regions cannot have ';'.*rename it"),
        ([("a\nb", box(0, 0, 5, 5))], r"annotation 1 is named 'a\\\\nb'; names .*rename it"),
        ([("a", shapely.LineString([(0, 0), (5, 5)]))], "annotation 1 is a LineString, only areas can be used"),
    ],
)
def test_what_cannot_be_a_region_is_one_line(tmp_path, regions_of, features, message):
    path = write_outlines(tmp_path / "b.geojson", features)
    with pytest.raises(SlideError) as raised:
        regions_of(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert re.search(message, text)


def test_a_file_that_is_no_geojson_is_one_line(tmp_path, regions_of):
    Path(tmp_path / "b.geojson").write_text("{")
    with pytest.raises(SlideError, match=r"b.geojson: cannot be read: .*; export it again"):
        regions_of(tmp_path / "b.geojson")
