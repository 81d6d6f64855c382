"""Outlines drawn in QuPath and ImageJ become the label image that a brush would have made, on any grid."""

import json
import os
import re
import zipfile
from itertools import pairwise

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from pipeline.base.errors import SlideError
from pipeline.metrics.evaluation import copy_reference, open_reference
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides import rasterize
from pipeline.slides.labels import IGNORED, class_map, open_labels, training_objects
from pipeline.slides.outlines import read_annotations
from pipeline.slides.planes import Plane
from pipeline.slides.rasterize import draw_areas
from pipeline.slides.slide import open_slide

OBJECTS = LabelConfig(classes=["background", "nucleus"], kind="instances")
TISSUES = LabelConfig(classes=["background", "stroma", "tumour"], kind="classes")
SPARSE = TISSUES.model_copy(update={"ignored": 200, "values": [7, 8, 9]})

corners = st.tuples(st.integers(-3, 23), st.integers(-3, 33))


def box(left, top, right, bottom):
    return [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]]


def geojson(path, *features):
    """Write features (coordinates, class or None, and type if it is no polygon) as QuPath does."""
    content = [
        {
            "type": "Feature",
            "geometry": {"type": "".join(kind) or "Polygon", "coordinates": coordinates},
            "properties": {"objectType": "annotation"} | ({"classification": {"name": name}} if name else {}),
        }
        for coordinates, name, *kind in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content}))
    return path


def read(path, config, *, shape=(20, 30), view=None):
    """Return the labels of an annotation file on the grid of an image of ``shape``."""
    image = path.with_name("image.tif")
    tifffile.imwrite(image, np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape))
    with (
        open_slide(image, memory_mb=100, view=view or ImageConfig()) as slide,
        open_labels(path, config, memory_mb=100, like=slide) as labels,
    ):
        assert (labels.shape, labels.channels) == (slide.shape, 1)
        return labels.read_all()[0]


def brush(areas, shape):
    """Return labels by a slow test of every pixel centre against every area; the last area counts."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, int)
    for value, area in enumerate(areas, start=1):
        labels[shapely.contains_xy(area, columns, rows)] = value
    return labels


@given(
    areas=st.lists(st.lists(corners, min_size=3, max_size=7), min_size=1, max_size=4),
    top=st.integers(0, 18),
    left=st.integers(0, 28),
    rows=st.integers(1, 20),
    columns=st.integers(1, 30),
)
def test_a_pixel_has_the_value_of_the_area_that_holds_its_centre(areas, top, left, rows, columns):
    """Polygons of any form, with crossings and holes, against a test of every point; regions equal the whole."""
    valid = [shapely.union_all(_polygons(shapely.make_valid(shapely.Polygon(ring)))) for ring in areas]
    valid = [_shifted(area) for area in valid if not area.is_empty]
    drawing = draw_areas((20, 30), valid, range(1, len(valid) + 1), outside=0)
    region = np.s_[top : top + rows, left : left + columns]
    np.testing.assert_array_equal(drawing[0, region[0], region[1]], brush(valid, (20, 30))[region])


@given(
    areas=st.lists(st.lists(st.tuples(*[st.integers(0, 40)] * 2), min_size=3, max_size=8), min_size=1, max_size=4),
    step=st.sampled_from([(1.0, 1.0), (0.7, 1.3), (2.0, 2.0)]),
    cut=st.tuples(st.integers(1, 19), st.integers(1, 29)),
)
def test_any_block_equals_the_whole_also_where_outlines_go_through_pixel_centres(areas, step, cut):
    """Ends of lines are at corners, edges and centres of pixels; areas may have holes."""
    rings = [shapely.make_valid(shapely.Polygon(np.array(ring) / 2)) for ring in areas]
    valid = [area for area in (shapely.union_all(_polygons(ring)) for ring in rings) if not area.is_empty]
    drawing = draw_areas((20, 30), valid, range(1, len(valid) + 1), outside=0, step=step)
    whole = drawing[0]
    (top, bottom), (left, right) = ((slice(0, at), slice(at, None)) for at in cut)
    parts = [[drawing[0, rows, columns] for columns in (left, right)] for rows in (top, bottom)]
    np.testing.assert_array_equal(np.block(parts), whole)


def test_a_hole_through_pixel_centres_is_the_same_in_every_region():
    """By hand: centres on the left and upper outline are inside, those on the right and lower one are not."""
    ring, hole = box(1.5, 1.5, 6.5, 6.5)[0], box(3.5, 3.5, 5.5, 5.5)[0]
    drawing = draw_areas((8, 8), [shapely.Polygon(ring, [hole])], [1], outside=0)
    expected = np.zeros((8, 8), int)
    expected[1:6, 1:6] = 1
    expected[3:5, 3:5] = 0
    np.testing.assert_array_equal(drawing[0], expected)
    for row, column in np.ndindex(8, 8):
        assert drawing[0, row : row + 1, column : column + 1] == expected[row, column]


def test_areas_that_share_an_outline_share_no_pixel_and_leave_none():
    """A fan of triangles around a pixel centre, some of whose edges go through others."""
    angles = np.linspace(0, 2 * np.pi, 17)
    around = 10.5 + 8 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    fan = [shapely.Polygon([(10.5, 10.5), one, other]) for one, other in pairwise(around)]
    alone = np.stack([draw_areas((21, 21), [area], [1], outside=0)[0] for area in fan])
    whole = draw_areas((21, 21), [shapely.Polygon(around)], [1], outside=0)[0]
    np.testing.assert_array_equal(alone.sum(axis=0), whole)


def test_outlines_are_checked_and_indexed_once_for_all_regions(tmp_path, monkeypatch):
    path = geojson(tmp_path / "a.geojson", *((box(x, 2, x + 2, 4), None) for x in range(0, 20, 3)))
    tree, made = rasterize.STRtree, []
    monkeypatch.setattr(rasterize, "STRtree", lambda areas: made.append(1) or tree(areas))
    first = read(path, OBJECTS)
    np.testing.assert_array_equal(read(path, OBJECTS), first)
    assert len(made) == 1
    os.utime(path, ns=(1, 1))
    read(path, OBJECTS)
    assert len(made) == 2


def _polygons(area):
    return [part for part in shapely.get_parts(area) if part.geom_type == "Polygon"]


def _shifted(area):
    """Move an area so that no outline goes through a pixel centre, where both values are right."""
    return shapely.transform(area, lambda points: points + np.array([0.2371, 0.1173]))


def test_holes_stay_empty_and_later_areas_cover_earlier_ones(tmp_path):
    ring = [box(2, 2, 12, 12)[0], box(5, 5, 9, 9)[0]]
    boxes = [box(10, 10, 14, 14), box(20, 0, 22, 2)]
    path = geojson(tmp_path / "a.geojson", (ring, "stroma"), (boxes, "tumour", "MultiPolygon"))
    expected = np.zeros((20, 30), int)
    expected[2:12, 2:12] = 1
    expected[5:9, 5:9] = 0
    expected[10:14, 10:14] = expected[0:2, 20:22] = 2
    np.testing.assert_array_equal(read(path, TISSUES), expected)


def test_pixels_outside_areas_are_ignored_if_annotation_is_sparse(tmp_path):
    path = geojson(tmp_path / "a.geojson", (box(0, 0, 3, 3), "tumour"), (box(3, 0, 5, 3), "background"))
    labels = read(path, SPARSE)
    assert labels[1, :7].tolist() == [9, 9, 9, 7, 7, 200, 200]
    assert class_map(labels, SPARSE, source=path)[1, :7].tolist() == [2, 2, 2, 0, 0, IGNORED, IGNORED]


def test_every_outline_is_an_object(tmp_path):
    """Touching objects are separated, as in a label image; areas of background are no objects."""
    features = (box(0, 0, 4, 4), None), (box(4, 0, 8, 4), "nucleus"), (box(10, 0, 20, 4), "background")
    path = geojson(tmp_path / "a.geojson", *features)
    sparse = OBJECTS.model_copy(update={"ignored": 2})
    assert read(path, sparse)[0, [0, 4, 10, 25]].tolist() == [1, 3, 0, 2]
    classes, objects = training_objects(read(path, sparse), sparse, source=path)
    assert classes[0, [0, 3, 4, 10, 25]].tolist() == [1, 0, 1, 0, IGNORED]
    assert objects[0, [0, 3, 4, 10, 25]].tolist() == [1, 0, 2, 0, 0]


def test_outlines_are_in_pixels_of_the_file_whatever_the_view(tmp_path):
    path = geojson(tmp_path / "a.geojson", (box(8, 4, 20, 12), "tumour"))
    view = ImageConfig(pixel_size_um=1.0, fallback_pixel_size_um=0.25)
    expected = np.zeros((10, 15), int)
    expected[1:3, 2:5] = 2
    np.testing.assert_array_equal(read(path, TISSUES, shape=(40, 60), view=view), expected)


def test_all_shapes_of_imagej_are_read(tmp_path):
    """A rectangle, an ellipse, a polygon, and a composite with a hole, in one set; class by name or by group."""
    hole = ImagejRoi(
        roitype=ROI_TYPE.RECT,
        top=0,
        left=0,
        bottom=6,
        right=6,
        name="stroma-2",
        shape_roi_size=26,
        multi_coordinates=np.array(
            [0, 0, 0, 1, 6, 0, 1, 6, 6, 1, 0, 6, 4, 0, 2, 2, 1, 4, 2, 1, 4, 4, 1, 2, 4, 4], np.float32
        ),
    )
    polygon = ImagejRoi.frompoints(np.array([[10, 10], [14, 10], [14, 14], [10, 14]], np.float32), name="0012-0012")
    polygon.group = 2
    rois = {
        "1.roi": hole,
        "2.roi": polygon,
        "3.roi": ImagejRoi(roitype=ROI_TYPE.RECT, top=16, left=0, bottom=18, right=5, name="tumour"),
        "4.roi": ImagejRoi(roitype=ROI_TYPE.OVAL, top=0, left=12, bottom=10, right=28, name="stroma_13"),
    }
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, roi in rois.items():
            archive.writestr(name, roi.tobytes())
    rows, columns = np.mgrid[:20, :30] + 0.5
    expected = np.where(((rows - 5) / 5) ** 2 + ((columns - 20) / 8) ** 2 < 1, 1, 0)
    expected[0:6, 0:6] = 1
    expected[2:4, 2:4] = 0
    expected[10:14, 10:14] = expected[16:18, 0:5] = 2
    np.testing.assert_array_equal(read(path, TISSUES), expected)


@pytest.mark.parametrize(("width", "height", "corner"), [(40, 40, 40), (40, 20, 12), (30, 20, 99), (30, 20, 0)])
def test_a_rounded_rectangle_has_round_corners(tmp_path, width, height, corner):
    """By the formula of each pixel centre; a corner is a quarter of an ellipse, at most as large as the sides."""
    path = tmp_path / "a.roi"
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, top=3, left=5, bottom=3 + height, right=5 + width)
    roi.rounded_rect_arc_size = corner
    path.write_bytes(roi.tobytes())
    rows, columns = np.mgrid[:50, :60] + 0.5
    radii = [max(min(corner, side) / 2, 1e-9) for side in (height, width)]
    beyond = [
        np.abs(place - start - side / 2) - (side / 2 - radius)
        for place, start, side, radius in ((rows, 3, height, radii[0]), (columns, 5, width, radii[1]))
    ]
    inside = sum((np.maximum(far, 0) / radius) ** 2 for far, radius in zip(beyond, radii, strict=True)) < 1
    np.testing.assert_array_equal(read(path, OBJECTS, shape=(50, 60)) > 0, inside)


def test_a_single_roi_between_pixels(tmp_path):
    path = tmp_path / "a.roi"
    path.write_bytes(
        ImagejRoi.frompoints(np.array([[1.2, 1.2], [4.2, 1.2], [4.2, 3.2], [1.2, 3.2]], np.float32)).tobytes()
    )
    assert np.argwhere(read(path, OBJECTS)).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


@pytest.mark.parametrize("name", ["tumour: Positive", "tumour: CD3: CD8"])
def test_a_derived_class_of_qupath_belongs_to_its_base(tmp_path, name):
    drawn = read(geojson(tmp_path / "a.geojson", (box(0, 0, 5, 5), name)), TISSUES)
    assert np.unique(drawn[:5, :5]) == TISSUES.classes.index("tumour")


@pytest.mark.parametrize(
    ("feature", "config", "message"),
    [
        (([1, 1], "tumour", "Point"), TISSUES, "annotation 1 is a Point, only areas can be used"),
        (([[1, 1], [2, 2]], None, "LineString"), OBJECTS, "annotation 1 is a LineString"),
        ((box(0, 0, 0, 5), "tumour"), TISSUES, "annotation 1 has no area"),
        (
            ([box(0, 0, 9, 9), box(5, 5, 14, 14)], "tumour", "MultiPolygon"),
            TISSUES,
            "annotation 1 has parts that overlap, .* make each an annotation of its own",
        ),
        ((box(0, 0, 5, 5), "necrosis"), TISSUES, "has class 'necrosis', allowed: background, stroma, tumour"),
        ((box(0, 0, 5, 5), "Tumour"), TISSUES, "rename it to 'tumour', upper and lower case differ"),
        ((box(0, 0, 5, 5), None), TISSUES, "annotation 1 has no class; give it one of background"),
        ((box(0, 0, 60, 40), "tumour"), TISSUES, "rows 0 to 40 and columns 0 to 60, .* has 20 rows and 30 columns"),
        ((box(0, 0, "x", 40), "tumour"), TISSUES, "annotation 1 has coordinates of no polygon; export it again"),
        (([[[1, 1], [9, 1, 5], [9, 9]]], "tumour"), TISSUES, "annotation 1 has coordinates of no polygon"),
    ],
)
def test_a_wrong_annotation_is_refused_with_its_number(tmp_path, feature, config, message):
    with pytest.raises(SlideError, match=message):
        read(geojson(tmp_path / "a.geojson", feature), config)


@pytest.mark.parametrize("content", ["", "{", "[1]", "5", '{"type": "Feature"}', "\udcff", "[" * 100_000])
def test_files_without_annotations_are_refused(tmp_path, content):
    path = tmp_path / "a.geojson"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SlideError, match="a.geojson: cannot be read") as refusal:
        read(path, OBJECTS)
    assert not re.search(r"object|codec|recursion|'", str(refusal.value).removeprefix(str(path)))


@pytest.mark.parametrize("content", ["[]", '{"type": "FeatureCollection", "features": []}'])
def test_a_collection_without_features_draws_nothing(tmp_path, content):
    path = tmp_path / "a.geojson"
    path.write_text(content)
    assert not read(path, OBJECTS).any()


SQUARE = {"type": "Polygon", "coordinates": box(2, 2, 6, 6)}
THREE_D = {"type": "Polygon", "coordinates": [[[x, y, 5] for x, y in box(2, 2, 6, 6)[0]]]}
FEATURE = {"type": "Feature", "geometry": SQUARE, "properties": {"isLocked": True}}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(FEATURE),
        json.dumps([FEATURE]),
        json.dumps(SQUARE),
        json.dumps([SQUARE]),
        json.dumps(FEATURE | {"geometry": THREE_D}),
        "\ufeff" + json.dumps(FEATURE),
        json.dumps({"type": "FeatureCollection", "features": [FEATURE, FEATURE | {"geometry": None}]}),
        json.dumps([FEATURE | {"properties": None}]),
    ],
)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_every_way_to_write_a_square_draws_it(tmp_path, content, is_zipped):
    """A bare geometry, a third coordinate, a byte order mark, a null geometry, QuPath's compressed export."""
    path = tmp_path / ("a.zip" if is_zipped else "a.geojson")
    if is_zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.geojson", content)
            archive.writestr("__MACOSX/._a.geojson", b"Mac OS X")
    else:
        path.write_text(content, encoding="utf-8")
    labels = read(path, OBJECTS)
    assert labels[2:6, 2:6].all()
    assert labels.sum() == 16


@pytest.mark.parametrize("suffix", ["geojson", "roi"])
def test_an_outline_that_crosses_itself_a_million_times_is_drawn_by_the_even_odd_rule(tmp_path, generator, suffix):
    points = generator.integers(0, 20, (2000, 2))
    path = tmp_path / f"a.{suffix}"
    if suffix == "roi":
        path.write_bytes(ImagejRoi.frompoints(points.astype(np.float32)).tobytes())
    else:
        geojson(path, ([[*points.tolist(), points[0].tolist()]], None))
    (x, y), (to_x, to_y) = points.T, np.roll(points, -1, axis=0).T
    rows, columns = np.mgrid[:20, :30][..., None] + 0.5
    crossed = (y > rows) != (to_y > rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (crossed & (columns >= x + (rows - y) / (to_y - y) * (to_x - x))).sum(axis=-1) % 2
    assert np.mean((read(path, OBJECTS) > 0) == inside) > 0.99  # centres on a line may fall on either side


def test_a_zip_without_outlines_says_what_belongs_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(SlideError, match="it holds 0 .geojson and 0 .roi files, not one .geojson, or only .roi"):
        read(tmp_path / "a.zip", OBJECTS)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.geojson", json.dumps(FEATURE))
        archive.writestr("a.roi", ImagejRoi(roitype=ROI_TYPE.RECT, top=0, left=0, bottom=3, right=3).tobytes())
    with pytest.raises(SlideError, match="it holds 1 .geojson and 1 .roi files, not one .geojson, or only .roi"):
        read(tmp_path / "b.zip", OBJECTS)


def test_texts_and_pictures_of_an_overlay_are_passed_over(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, subtype in (("a", ROI_SUBTYPE.UNDEFINED), ("b", ROI_SUBTYPE.TEXT), ("c", ROI_SUBTYPE.IMAGE)):
            left = 10 * len(archive.namelist())
            roi = ImagejRoi(roitype=ROI_TYPE.RECT, subtype=subtype, top=0, left=left, bottom=5, right=left + 5)
            archive.writestr(f"{name}.roi", roi.tobytes())
    assert read(path, OBJECTS).sum() == 25
    assert read_annotations(path, memory_mb=100).warnings == (
        "annotation 2 (text) is no outline, and is passed over",
        "annotation 3 (image) is no outline, and is passed over",
    )


def test_lines_of_imagej_and_files_beyond_the_budget_are_refused(tmp_path):
    path = tmp_path / "a.roi"
    path.write_bytes(ImagejRoi(roitype=ROI_TYPE.LINE, subtype=ROI_SUBTYPE.UNDEFINED).tobytes())
    with pytest.raises(SlideError, match="annotation 1 is a line"):
        read(path, OBJECTS)
    bomb = tmp_path / "b.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.roi", bytes(20_000_000))
    with pytest.raises(SlideError, match="20000000 bytes need more than 100 MB"):
        read(bomb, OBJECTS)


def test_outlines_can_be_a_reference(tmp_path):
    """As for held-back images of a fold; pixels outside of outlines may be not annotated."""
    path = geojson(tmp_path / "a.geojson", (box(0, 0, 4, 4), None), (box(8, 0, 12, 4), None))
    expected = read(path, OBJECTS) > 0

    def copied(config):
        grid = {"memory_mb": 100, "plane": Plane(view=ImageConfig())}
        with open_reference(path, expected.shape, tmp_path / "image.tif", config, **grid) as truth:
            return copy_reference(truth, config, tmp_path / str(config.ignored))

    side = copied(OBJECTS)
    assert side.count == 2
    np.testing.assert_array_equal(side.classes[:] > 0, expected)
    sparse = copied(OBJECTS.model_copy(update={"ignored": 9}))
    assert sparse.count == 2
    np.testing.assert_array_equal(sparse.classes[:], np.where(expected, 1, IGNORED))
