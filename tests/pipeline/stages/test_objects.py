"""The stage ``objects`` from files to files: a table and polygons, or the reason why not in its ledger."""

import json
import re
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.color
import skimage.draw
import skimage.measure
import tifffile

from pipeline.base import paths
from pipeline.base.palette import class_rgb
from pipeline.masks.measurements.dictionary import measurements
from tests.support.jobs import Jobs
from tests.support.masks import blobs, numbered, signed_area

CLASSES = ["background", "nucleus", "cell"]
KINDS = {"classes": CLASSES, "training": {"kind": "classes"}}
SAMPLE = "plate/a"


class Objects:
    """A slide and its mask in the current folder, and the stage on them."""

    def __init__(self, classes, slide, *, instances=True, pixel_size_um=(0.5, 0.25), **settings):
        self.jobs = Jobs(**KINDS, **settings)
        self.slide, self.mask = Path("slide.tif"), self.jobs.mask(SAMPLE)
        tifffile.imwrite(self.slide, slide)
        images = {"classes": classes} | ({"instances": numbered(classes)} if instances else {})
        self.jobs.put(SAMPLE, self.slide)
        self.jobs.put_mask(SAMPLE, images, pixel_size_um)

    def run(self):
        """Run the stage on the mask that lies there as a new one; return what it recorded."""
        self.jobs.record("stitch", mask_sha256="0")
        return self.jobs.run("objects")[SAMPLE]

    @property
    def table(self):
        return self.jobs.path(paths.OBJECTS, SAMPLE)

    @property
    def collection(self):
        return json.loads(self.jobs.path(paths.ANNOTATIONS, SAMPLE).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("in_folder")
def test_a_table_and_polygons_by_hand():
    classes = np.array([[0, 1, 1], [2, 0, 0]], np.uint8)
    slide = np.array([[9, 10, 20], [7, 9, 9]], np.uint8)
    objects = Objects(classes, slide, measurements={"groups": []})
    entry = objects.run()
    assert entry.found == {
        "objects": 2,
        "median_area_px": 1.5,
        "area_spread": 0.5,
        "class_objects": [0, 1, 1],
        "class_pixels": [3, 2, 1],
        "class_median_area_px": [None, 2.0, 1.0],
        "pixel_size_um": [0.5, 0.25],
        "picture_px": [2, 3],
        "regions": 0,
        "warnings": [],
        "marked": 2,
        "histograms": {
            name: {"low": pytest.approx(low), "high": pytest.approx(high), "counts": [1, *[0] * 13, 1]}
            for name, low, high in (
                ("area_um2", 0.125625, 0.249375),
                ("mean_intensity_0", 7.04, 14.96),
                ("eccentricity", 0.005, 0.995),
            )
        },
    }
    assert {str(objects.table), str(objects.jobs.path(paths.ANNOTATIONS, SAMPLE))} < set(entry.files)
    assert objects.table.read_text() == (
        "id,class,regions,area_px,area_um2,centroid_row_px,centroid_column_px,top_px,left_px,bottom_px,right_px,"
        "eccentricity,mean_intensity_0\n"
        "1,nucleus,slide,2,0.25,0.0,1.5,0,1,1,3,1.0,15.0\n"
        "2,cell,slide,1,0.125,1.0,0.0,1,0,2,1,0.0,7.0\n"
    )
    collection = objects.collection
    assert collection["type"] == "FeatureCollection"
    assert collection["provenance"]["stage"] == "objects"
    first, second = collection["features"]
    assert first == {
        "type": "Feature",
        "id": first["id"],
        "geometry": {"type": "Polygon", "coordinates": [[[1, 0], [3, 0], [3, 1], [1, 1], [1, 0]]]},
        "properties": {
            "objectType": "detection",
            "name": "1",
            "classification": {"name": "nucleus", "color": list(class_rgb(1))},
            "measurements": {"Area px": 2, "Area µm^2": 0.25, "Eccentricity": 1.0, "Channel 0: Mean": 15.0},
        },
    }
    assert second["properties"]["classification"] == {"name": "cell", "color": list(class_rgb(2))}
    assert uuid.UUID(first["id"]).version == 5
    assert first["id"] != second["id"]


@pytest.mark.usefixtures("in_folder")
def test_outlines_are_in_pixels_of_the_file_and_the_table_in_those_of_the_mask():
    """The mask is of 2 x 3 px of 1 µm, the file of 4 x 6 px of half a µm."""
    view = {"pixel_size_um": 1.0, "fallback_pixel_size_um": 0.5}
    slide = np.arange(24, dtype=np.uint8).reshape(4, 6)
    objects = Objects(np.array([[0, 1, 1], [0, 0, 0]], np.uint8), slide, image=view)
    objects.run()
    (feature,) = objects.collection["features"]
    assert feature["geometry"]["coordinates"] == [[[2, 0], [6, 0], [6, 2], [2, 2], [2, 0]]]
    table = pd.read_csv(objects.table)
    assert table[["area_px", "left_px", "right_px"]].to_numpy().tolist() == [[2, 1, 3]]
    assert table["mean_intensity_0"].item() == pytest.approx((5.5 + 7.5) / 2, abs=0.5)  # rounded to whole numbers


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize("instances", [True, False])
def test_files_hold_what_regionprops_says(generator, instances):
    """Larger than a tile of the mask, two channels of a colour slide, with and without an image of object ids."""
    classes = blobs(generator, (600, 700), sigma=6)
    slide = generator.integers(0, 255, (600, 700, 3)).astype(np.uint8)
    view = {"channels": [2, 0, 2]}
    objects = Objects(classes, slide, instances=instances, pixel_size_um=None, image=view)
    objects.run()
    table = pd.read_csv(objects.table)
    expected = skimage.measure.regionprops_table(
        numbered(classes).astype(np.int64), slide, properties=["label", "area", "centroid", "bbox", "intensity_mean"]
    )
    assert table["id"].tolist() == expected["label"].tolist()
    assert table["area_um2"].isna().all()
    names = {"area_px": "area", "centroid_row_px": "centroid-0", "centroid_column_px": "centroid-1"}
    names |= {"bottom_px": "bbox-2", "right_px": "bbox-3"}
    names |= {"mean_intensity_2": "intensity_mean-2", "mean_intensity_0": "intensity_mean-0"}
    for column, name in names.items():
        np.testing.assert_allclose(table[column], expected[name], rtol=1e-9)
    features = objects.collection["features"]
    assert {int(feature["properties"]["name"]) for feature in features} == set(table["id"])
    for feature in features:
        area = feature["properties"]["measurements"]["Area px"]
        assert sum(signed_area(ring) for ring in feature["geometry"]["coordinates"]) == area


@pytest.mark.usefixtures("in_folder")
def test_all_measurements_are_in_the_table_and_in_qupath(generator):
    """Stains are of the colours of the file, although the network sees one channel of it."""
    classes = blobs(generator, (90, 80))
    slide = generator.integers(0, 255, (90, 80, 3)).astype(np.uint8)
    measured = {
        "groups": ["neighbours", "stains", "intensity", "shape"],
        "positive": {1: 127.5, "DAB": 0.05},
        "compartments": {"body": {"nucleus": "nucleus", "expand_um": 2}},
    }
    objects = Objects(classes, slide, pixel_size_um=(0.5, 0.5), image={"channels": [1]}, measurements=measured)
    objects.run()
    table = pd.read_csv(objects.table)
    listed = measurements(objects.jobs.settings.measurements, CLASSES, [1])
    assert list(table.columns) == [one.column for one in listed]
    stained = np.concatenate([slide[..., 1:2], skimage.color.rgb2hed(slide)], axis=-1)
    expected = skimage.measure.regionprops(numbered(classes).astype(np.int64), stained)
    names = ["1", "Hematoxylin", "Eosin", "DAB"]
    for statistic, key in (("mean", "intensity_mean"), ("sd", "intensity_std"), ("max", "intensity_max")):
        np.testing.assert_allclose(
            table[[f"{statistic}_intensity_{name}" for name in names]], [one[key] for one in expected], atol=1e-12
        )
    np.testing.assert_allclose(table["perimeter_um"], [one.perimeter_crofton / 2 for one in expected])
    for name, threshold in (("1", 127.5), ("DAB", 0.05)):
        is_positive = table[f"mean_intensity_{name}"] > threshold
        assert 0.2 < is_positive.mean() < 0.8
        assert table[f"positive_{name}"].tolist() == is_positive.tolist()
    is_nucleus = table["class"] == "nucleus"
    assert table["body_area_um2"].notna().tolist() == is_nucleus.tolist()
    sums = pd.read_csv(objects.jobs.path(paths.REGIONS, SAMPLE)).set_index("class")
    assert sums.loc["nucleus", "positive_DAB"] == table.loc[is_nucleus, "positive_DAB"].sum()
    assert sums.loc["nucleus", "body_area_um2_mean"] == pytest.approx(table["body_area_um2"].mean())
    for feature in objects.collection["features"]:
        row = table.set_index("id").loc[int(feature["properties"]["name"])]
        shown = {one.title: row[one.column] for one in listed if one.title and not pd.isna(row[one.column])}
        assert feature["properties"]["measurements"] == pytest.approx(shown)


@pytest.mark.usefixtures("in_folder")
def test_positive_by_the_ring_is_a_whole_number_or_empty():
    """A nucleus of 1 px with a bright ring, one with a dark ring, a cell: it has no ring."""
    classes, slide = np.zeros((2, 7, 20), np.uint8)
    classes[3, 3], classes[3, 13], classes[6, 0] = 1, 1, 2
    slide[2:5, 2:5] = 200
    body = {"body": {"nucleus": "nucleus", "expand_um": 0.5}}
    measured = {"positive": {0: 100}, "score_compartment": {0: "body_ring"}, "compartments": body}
    objects = Objects(classes, slide, pixel_size_um=(0.5, 0.5), measurements=measured)
    objects.run()
    assert [line.split(",")[-1] for line in objects.table.read_text().splitlines()] == ["positive_0", "1", "0", ""]
    sums = pd.read_csv(objects.jobs.path(paths.REGIONS, SAMPLE)).set_index("class")
    assert sums.loc["nucleus", ["positive_0", "positive_0_share"]].tolist() == [1, 0.5]
    assert sums.loc["cell", ["positive_0", "positive_0_share"]].isna().all()
    positives = [
        feature["properties"]["measurements"].get("Channel 0: Positive") for feature in objects.collection["features"]
    ]
    assert positives == [1, 0, None]


@pytest.mark.usefixtures("in_folder")
def test_a_threshold_for_a_channel_that_the_slide_lacks_is_one_line():
    objects = Objects(np.ones((4, 5), np.uint8), np.ones((4, 5), np.uint8), measurements={"positive": {"Ki67": 1}})
    message = objects.run().failure.message
    assert message == "slide.tif: measurements.positive: no channel 'Ki67'; measured are 0"


@pytest.mark.usefixtures("in_folder")
def test_a_mask_without_objects_gives_a_header_and_no_features():
    body = {"body": {"nucleus": "nucleus", "expand_um": 2}}
    measured = {"compartments": body, "positive": {0: 1}}
    objects = Objects(np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint16), measurements=measured)
    found = objects.run().found
    assert (found["objects"], found["median_area_px"]) == (0, None)
    assert (found["class_objects"], found["class_pixels"]) == ([0, 0, 0], [600, 0, 0])
    table = pd.read_csv(objects.table)
    assert (len(table), list(table.columns[:2]), table.columns[-1]) == (0, ["id", "class"], "positive_0")
    assert objects.collection["features"] == []


@pytest.mark.usefixtures("in_folder")
def test_equal_input_gives_equal_bytes(generator):
    objects = Objects(blobs(generator, (90, 80)), generator.random((90, 80)).astype(np.float32))
    written = []
    for _ in range(2):
        files = objects.run().files
        written.append({path: Path(path).read_bytes() for path in files})
        for path in files:
            Path(path).unlink()
    assert written[0] == written[1]


def cut(objects, share):
    """Keep the first part of the mask."""
    content = objects.mask.read_bytes()
    objects.mask.write_bytes(content[: round(len(content) * share)])


def clear_object_ids(objects):
    """Overwrite the first object ids with zeros."""
    with tifffile.TiffFile(objects.mask) as tiff:
        start, length = (tiff.series[1].keyframe.dataoffsets[0], tiff.series[1].keyframe.databytecounts[0])
    content = bytearray(objects.mask.read_bytes())
    content[start : start + length] = bytes(length)
    objects.mask.write_bytes(content)


def ask_for_stains(objects):
    objects.jobs.configure(**KINDS, measurements={"groups": ["stains"]})


def no_such_channel(objects):
    objects.jobs.configure(**KINDS, image={"channels": [1]})


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda objects: tifffile.imwrite(objects.slide, np.zeros((90, 81))), r"has \(90, 80\) px .* \(90, 81\) px"),
        (lambda objects: tifffile.imwrite(objects.mask, np.zeros((3, 9, 8), "u1")), "not a whole mask .* no image"),
        (lambda objects: objects.jobs.configure(classes=CLASSES[:2]), "class 2 .*2 classes"),
        (no_such_channel, "no channel 1"),
        (
            ask_for_stains,
            "slide.tif: stains are of RGB images .* no RGB of uint8; remove stains",
        ),
        (lambda objects: objects.mask.write_bytes(b""), "the file is empty"),
        (clear_object_ids, "a.ome.tiff: cannot be read: .*; remove the mask"),
        *(
            (lambda objects, share=share: cut(objects, share), "cut short|not a whole mask")
            for share in (0.2, 0.5, 0.99)
        ),
    ],
)
def test_a_wrong_input_is_the_failure_of_its_sample_and_writes_nothing(generator, spoil, message):
    objects = Objects(blobs(generator, (90, 80)), np.zeros((90, 80), np.uint8))
    spoil(objects)
    entry = objects.run()
    assert (entry.failure.stage, entry.failure.error_class, entry.files) == ("objects", "SlideError", [])
    assert re.search(message, entry.failure.message)
    assert not list(objects.table.parent.rglob("*.*"))
