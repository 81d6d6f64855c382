"""Outlines are drawn on the plane that they were drawn on in QuPath or ImageJ."""

import json
import os
import zipfile

import numpy as np
import pytest
import tifffile
from roifile import ROI_TYPE, ImagejRoi

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import open_labels
from pipeline.slides.slide import open_slide

OBJECTS = LabelConfig(classes=["background", "nucleus"], kind="instances")


def box(left, top, right, bottom):
    return [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]]


def read(path):
    """Return the labels and the warnings of an annotation file of an image of one plane."""
    image = path.with_name("image.tif")
    tifffile.imwrite(image, np.zeros((20, 30), np.uint8))
    with (
        open_slide(image, memory_mb=100, view=ImageConfig()) as slide,
        open_labels(path, OBJECTS, memory_mb=100, like=slide) as labels,
    ):
        return labels.read_all()[0], labels.inspect()


def qupath_planes(path, places):
    """One square per place (z, t), or without a plane, each in its own columns."""
    features = []
    for number, place in enumerate(places):
        square = {"type": "Polygon", "coordinates": box(5 * number, 0, 5 * number + 3, 3)}
        plane = {} if place is None else {"plane": {"c": -1, "z": place[0], "t": place[1]}}
        features.append({"type": "Feature", "geometry": square | plane, "properties": {}})
    path.write_text(json.dumps(features))


def imagej_planes(path, places):
    """The same as ROIs of a hyperstack."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, place in enumerate(places):
            roi = ImagejRoi(roitype=ROI_TYPE.RECT, top=0, left=5 * number, bottom=3, right=5 * number + 3)
            if place is not None:
                roi.z_position, roi.t_position = place[0] + 1, place[1] + 1
            archive.writestr(f"{number}.roi", roi.tobytes())


def imagej_slices(path, places):
    """The same as ROIs of a stack of 2 channels, 3 planes and 2 times, whose slices are numbered."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, place in enumerate(places):
            roi = ImagejRoi(roitype=ROI_TYPE.RECT, top=0, left=5 * number, bottom=3, right=5 * number + 3)
            roi.position = 0 if place is None else 1 + number % 2 + 2 * (place[0] + 3 * place[1])
            archive.writestr(f"{number}.roi", roi.tobytes())


@pytest.mark.parametrize("write", [qupath_planes, imagej_planes, imagej_slices])
@pytest.mark.parametrize(
    ("z", "t", "drawn"), [(0, 0, [0, 4]), (1, 0, [1, 4]), (2, 0, [4]), (1, 1, [2, 4]), ("max", 0, [0, 1, 4])]
)
def test_outlines_are_drawn_on_their_plane_and_those_without_one_on_every_plane(tmp_path, write, z, t, drawn):
    path = tmp_path / ("a.geojson" if write is qupath_planes else "a.zip")
    write(path, [(0, 0), (1, 0), (1, 1), (0, 1), None])
    image = tmp_path / "x.ome.tif"
    tifffile.imwrite(image, np.zeros((2, 3, 2, 20, 30), np.uint8), metadata={"axes": "TZCYX"})
    with (
        open_slide(image, memory_mb=100, view=ImageConfig(z=z, t=t)) as slide,
        open_labels(path, OBJECTS, memory_mb=100, like=slide) as labels,
    ):
        found = labels.read_all()[0][0]
        assert [number for number in range(5) if found[5 * number]] == drawn
        assert labels.inspect() == (
            f"{5 - len(drawn)} of 5 outlines are on other planes, and not drawn; "
            "those without a plane (1) are drawn on every plane",
        )


def test_outlines_of_an_image_with_one_plane_are_of_one_plane(tmp_path):
    """A plane that was saved alone keeps its outlines, whatever number it had; outlines of several are refused."""
    path = tmp_path / "a.geojson"
    cases = (
        ([(3, 0), (3, 0), (3, 0)], ()),
        ([(0, 0), None, None], ()),
        ([None, None, None], ()),
        ([(3, 0), (3, 0), None], ("those without a plane (1) are drawn on every plane",)),
        ([(-1, -1), (0, 0), None], ()),
    )
    for changed_s, (places, warnings) in enumerate(cases):
        qupath_planes(path, places)
        os.utime(path, (changed_s, changed_s))
        labels, found = read(path)
        assert len(np.unique(labels)) == 4
        assert found == warnings
    qupath_planes(path, [(3, 0), (4, 0)])
    with pytest.raises(SlideError, match=r"outlines on the planes 3, 4 .from 0. along axis Z, the image has 1;"):
        read(path)


@pytest.mark.parametrize("plane", ["1", 0.5, [1], 1e400])
def test_a_plane_that_is_no_number_is_refused(tmp_path, plane):
    qupath_planes(tmp_path / "a.geojson", [(plane, 0)])
    with pytest.raises(SlideError, match="annotation 1 is on the plane .*, not a whole number; export it again"):
        read(tmp_path / "a.geojson")
