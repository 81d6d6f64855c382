"""`init` writes a configuration that fits the files that are there, and that the workflow accepts."""

import json

import numpy as np
import pytest
import tifffile

from pipeline.__main__ import main
from pipeline.commands.init import what_labels_hold
from pipeline.settings.schema import read_settings


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ([{255: 7}, {255: 3}], "instances"),  # one value: a mask of all objects
        ([{1: 1, 2: 1, 3: 1}, {1: 1, 2: 1}], "instances"),  # ids: one part each, as many as objects
        ([dict.fromkeys(range(1, 30), 1)], "instances"),
        ([{1: 5, 2: 9}], "classes"),  # two values, each in several places
        ([{128: 1, 255: 1}, {128: 1, 255: 1}], "classes"),  # one cell in each image, with its nucleus
        ([], "instances"),
    ],
)
def test_ids_have_one_part_and_classes_are_everywhere(parts, kind):
    assert what_labels_hold(parts)[0] == kind


def put(folder, name, pixels, **more):
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **more)


def init(folder, *words):
    return main(["init", "--directory", str(folder), *words])


def test_a_new_folder_becomes_a_project_with_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init(tmp_path / "new" / "project") == 0
    settings = read_settings(tmp_path / "new" / "project" / "config" / "config.yaml")
    assert settings.training.kind == "instances"
    for folder in (settings.slides, settings.references, settings.training.images, settings.training.labels):
        assert (tmp_path / "new" / "project" / folder).is_dir()


def test_classes_channels_and_stacks_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.zeros((20, 30), np.uint8)
    labels[2:5, 2:5], labels[10:13, 2:5], labels[2:5, 20:25], labels[10:12, 20:25] = 1, 1, 7, 7
    image = {"Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "axes": "CZYX"}
    put(tmp_path, "training/images/a.ome.tif", np.zeros((2, 3, 20, 30), np.uint8), metadata=image, ome=True)
    put(tmp_path, "training/labels/a.tif", labels)
    assert init(tmp_path) == 0
    text = (tmp_path / "config" / "config.yaml").read_text()
    settings = read_settings(tmp_path / "config" / "config.yaml")
    assert (settings.training.kind, settings.training.values) == ("classes", [0, 1, 7])
    assert settings.classes == ["background", "class1", "class2"]
    assert (settings.image.channels, settings.image.z) == ([0], "max")
    assert "# of DAPI, GFP" in text
    assert "pixel size" not in text


def outline(name):
    ring = [[1, 1], [9, 1], [9, 9], [1, 9], [1, 1]]
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}


@pytest.mark.parametrize(
    ("names", "kind", "classes"),
    [
        (["Tumor", "Tumor"], "instances", ["background", "Tumor"]),
        (["Tumor", "Stroma dense"], "classes", ["background", "Stroma dense", "Tumor"]),
        (["no", "Background", "Tumor"], "classes", ["Background", "Tumor", "no"]),
        ([None, None], "instances", ["background", "object"]),
    ],
)
def test_the_classes_of_outlines_are_those_of_the_project(tmp_path, monkeypatch, names, kind, classes):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "training/images/a.tif", np.zeros((20, 30), np.uint8))
    labels = tmp_path / "data" / "training" / "labels" / "a.geojson"
    labels.parent.mkdir()
    labels.write_text(json.dumps({"type": "FeatureCollection", "features": [outline(name) for name in names]}))
    assert init(tmp_path) == 0
    settings = read_settings(tmp_path / "config" / "config.yaml")
    assert (settings.training.kind, settings.classes) == (kind, classes)


def test_only_values_that_occur_are_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.full((20, 30), 255, np.uint8)
    labels[2:5, 2:5], labels[10:13, 2:5], labels[2:5, 20:25], labels[10:12, 20:25] = 253, 253, 254, 254
    for name in ("a", "b"):
        put(tmp_path, f"training/images/{name}.tif", np.zeros((20, 30), np.uint8))
        put(tmp_path, f"training/labels/{name}.tif", labels, photometric="miniswhite")
    assert init(tmp_path) == 0
    settings = read_settings(tmp_path / "config" / "config.yaml")
    assert (settings.training.values, len(settings.classes)) == ([253, 254, 255], 3)


def test_labels_of_another_shape_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "training/images/a.tif", np.zeros((20, 30), np.uint8))
    put(tmp_path, "training/labels/a.tif", np.ones((18, 30), np.uint8))
    assert init(tmp_path) == 1
    said = capsys.readouterr().err
    assert "labels of (18, 30) px (rows, columns) for an image of (20, 30) px" in said
    assert "Traceback" not in said


def test_a_project_is_not_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init(tmp_path) == 0
    assert init(tmp_path) == 1
    assert f"{tmp_path}/config/config.yaml: there is a project already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["estimate", "--directory", "none"], "error: estimate: --directory none: No such file or directory"),
        (["find-lr", "--model", "unet"], "config/config.yaml: cannot be read: No such file or directory; go to the"),
    ],
)
def test_a_command_in_the_wrong_place_says_where_it_looked(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    assert message in capsys.readouterr().err
