"""The stage ``objects`` from files to files: a table and polygons, or one line that says why not."""

import json
import uuid

import numpy as np
import pandas as pd
import pytest
import skimage.draw
import skimage.measure
import tifffile

from pipeline.base.errors import SlideError
from pipeline.base.palette import class_rgb
from pipeline.masks.ome_tiff import write_label_images
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import ObjectsConfig
from pipeline.stages.objects import run
from tests.support.masks import blobs, numbered, signed_area

CLASSES = ["background", "nucleus", "cell"]


def write(folder, classes, slide, *, instances=True, pixel_size_um=(0.5, 0.25)):
    """Write a slide and its mask; return the parameters of the stage."""
    tifffile.imwrite(folder / "slide.tif", slide)
    images = {"classes": classes} | ({"instances": numbered(classes)} if instances else {})
    write_label_images(folder / "mask.ome.tiff", images, pixel_size_um=pixel_size_um, annotations={})
    return {
        "model": "unet",
        "sample": "plate/a",
        "slide": folder / "slide.tif",
        "mask": folder / "mask.ome.tiff",
        "table": folder / "out" / "a.csv",
        "annotations": folder / "out" / "a.geojson",
        "memory_mb": 1000,
        "config": ObjectsConfig(classes=CLASSES, image=ImageConfig()),
    }


def test_a_table_and_polygons_by_hand(tmp_path):
    classes = np.array([[0, 1, 1], [2, 0, 0]], np.uint8)
    slide = np.array([[9, 10, 20], [7, 9, 9]], np.uint8)
    places = write(tmp_path, classes, slide)
    run(**places)
    assert places["table"].read_text() == (
        "id,class,area_px,area_um2,centroid_row_px,centroid_column_px,top_px,left_px,bottom_px,right_px,eccentricity,"
        "mean_intensity_0\n"
        "1,nucleus,2,0.25,0.0,1.5,0,1,1,3,1.0,15.0\n"
        "2,cell,1,0.125,1.0,0.0,1,0,2,1,0.0,7.0\n"
    )
    collection = json.loads(places["annotations"].read_text(encoding="utf-8"))
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
            "measurements": {"Area px": 2, "Area µm^2": 0.25, "Eccentricity": 1.0, "Mean intensity, channel 0": 15.0},
        },
    }
    assert second["properties"]["classification"] == {"name": "cell", "color": list(class_rgb(2))}
    assert uuid.UUID(first["id"]).version == 5
    assert first["id"] != second["id"]


def test_outlines_are_in_pixels_of_the_file_and_the_table_in_those_of_the_mask(tmp_path):
    """The mask is of 2 x 3 px of 1 µm, the file of 4 x 6 px of half a µm."""
    places = write(tmp_path, np.array([[0, 1, 1], [0, 0, 0]], np.uint8), np.arange(24, dtype=np.uint8).reshape(4, 6))
    view = ImageConfig(pixel_size_um=1.0, fallback_pixel_size_um=0.5)
    run(**places | {"config": ObjectsConfig(classes=CLASSES, image=view)})
    (feature,) = json.loads(places["annotations"].read_text(encoding="utf-8"))["features"]
    assert feature["geometry"]["coordinates"] == [[[2, 0], [6, 0], [6, 2], [2, 2], [2, 0]]]
    table = pd.read_csv(places["table"])
    assert table[["area_px", "left_px", "right_px"]].to_numpy().tolist() == [[2, 1, 3]]
    assert table["mean_intensity_0"].item() == pytest.approx((5.5 + 7.5) / 2, abs=0.5)  # rounded to whole numbers


@pytest.mark.parametrize("instances", [True, False])
def test_files_hold_what_regionprops_says(tmp_path, generator, instances):
    """Larger than a tile of the mask, two channels of a colour slide, with and without an image of object ids."""
    classes = blobs(generator, (600, 700), sigma=6)
    slide = generator.integers(0, 255, (600, 700, 3)).astype(np.uint8)
    places = write(tmp_path, classes, slide, instances=instances, pixel_size_um=None)
    run(**places | {"config": ObjectsConfig(classes=CLASSES, image=ImageConfig(channels=[2, 0, 2]))})
    table = pd.read_csv(places["table"])
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
    features = json.loads(places["annotations"].read_text(encoding="utf-8"))["features"]
    assert {int(feature["properties"]["name"]) for feature in features} == set(table["id"])
    for feature in features:
        area = feature["properties"]["measurements"]["Area px"]
        assert sum(signed_area(ring) for ring in feature["geometry"]["coordinates"]) == area


def test_a_mask_without_objects_gives_a_header_and_no_features(tmp_path):
    places = write(tmp_path, np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint16))
    run(**places)
    table = pd.read_csv(places["table"])
    assert (len(table), list(table.columns[:2]), table.columns[-1]) == (0, ["id", "class"], "mean_intensity_0")
    assert json.loads(places["annotations"].read_text(encoding="utf-8"))["features"] == []


def test_equal_input_gives_equal_bytes(tmp_path, generator):
    places = write(tmp_path, blobs(generator, (90, 80)), generator.random((90, 80)).astype(np.float32))
    written = []
    for _ in range(2):
        run(**places)
        written.append((places["table"].read_bytes(), places["annotations"].read_bytes()))
    assert written[0] == written[1]


def cut(places, share):
    """Keep the first part of the mask."""
    content = places["mask"].read_bytes()
    places["mask"].write_bytes(content[: round(len(content) * share)])


def clear_object_ids(places):
    """Overwrite the first object ids with zeros."""
    with tifffile.TiffFile(places["mask"]) as tiff:
        start, length = (tiff.series[1].keyframe.dataoffsets[0], tiff.series[1].keyframe.databytecounts[0])
    content = bytearray(places["mask"].read_bytes())
    content[start : start + length] = bytes(length)
    places["mask"].write_bytes(content)


TOO_FEW_CLASSES = ObjectsConfig(classes=CLASSES[:2], image=ImageConfig())
NO_SUCH_CHANNEL = ObjectsConfig(classes=CLASSES, image=ImageConfig(channels=[1]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda places: tifffile.imwrite(places["slide"], np.zeros((90, 81))), r"has \(90, 80\) px .* \(90, 81\) px"),
        (lambda places: tifffile.imwrite(places["mask"], np.zeros((3, 9, 8), "u1")), "not a whole mask .* no image"),
        (lambda places: places.update(config=TOO_FEW_CLASSES), "class 2 .*2 classes"),
        (lambda places: places.update(config=NO_SUCH_CHANNEL), "no channel 1"),
        (lambda places: places["mask"].write_bytes(b""), "the file is empty"),
        (clear_object_ids, "mask.ome.tiff: cannot be read: .*; remove the mask"),
        *((lambda places, share=share: cut(places, share), "cut short|not a whole mask") for share in (0.2, 0.5, 0.99)),
    ],
)
def test_a_wrong_input_gives_one_line_and_writes_nothing(tmp_path, generator, spoil, message):
    places = write(tmp_path, blobs(generator, (90, 80)), np.zeros((90, 80), np.uint8))
    spoil(places)
    with pytest.raises(SlideError, match=message):
        run(**places)
    assert not list(places["table"].parent.rglob("*.*"))
