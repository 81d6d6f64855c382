"""napari gets the slide and its mask with their scale, names, colours and pixel size."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from pipeline.__main__ import main
from pipeline.base.palette import class_rgb
from pipeline.commands import view
from pipeline.masks.ome_tiff import write_label_images


class Viewer:
    """Keeps the pixels and settings of its layers; the files are closed later."""

    def __init__(self, title):
        self.title, self.layers = title, {}

    def _add(self, levels, *, name, **settings):
        self.layers[name] = SimpleNamespace(pixels=[np.asarray(level) for level in levels], **settings)
        return self.layers[name]

    add_image = add_labels = _add


@pytest.fixture
def shown(monkeypatch):
    made = []
    napari = SimpleNamespace(Viewer=lambda title: made.append(Viewer(title)) or made[0], run=lambda: made.append("ran"))
    monkeypatch.setitem(sys.modules, "napari", napari)
    return made


@pytest.mark.parametrize(
    ("shape", "settings", "layout"),
    [
        ((60, 80), {}, {"channel_axis": 0}),
        ((60, 80, 3), {"photometric": "rgb"}, {"rgb": True}),
        ((2, 60, 80), {"metadata": {"axes": "CYX"}, "ome": True}, {"channel_axis": 0}),
    ],
)
def test_a_slide_and_its_mask(tmp_path, generator, shown, shape, settings, layout):
    pixels = generator.integers(0, 255, shape).astype(np.uint8)
    classes = generator.integers(0, 2, (60, 80)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, **settings)
    images = {"classes": classes, "instances": classes.astype(np.uint32)}
    write_label_images(tmp_path / "a.ome.tiff", images, pixel_size_um=(0.5, 0.25), annotations={})
    assert main(["view", "--slide", str(tmp_path / "a.tif"), "--mask", str(tmp_path / "a.ome.tiff")]) == 0
    viewer, ran = shown
    assert (viewer.title, ran) == ("a.tif", "ran")
    assert list(viewer.layers) == ["a.tif", "classes", "instances"]
    assert all((layer.scale, layer.units) == ((0.5, 0.25), ("um", "um")) for layer in viewer.layers.values())
    image = viewer.layers["a.tif"]
    np.testing.assert_array_equal(image.pixels[0], pixels[None] if pixels.ndim == 2 else pixels)
    assert {name: value for name, value in vars(image).items() if name in ("rgb", "channel_axis")} == layout
    np.testing.assert_array_equal(viewer.layers["classes"].pixels[0], classes)
    assert [level.shape for level in viewer.layers["classes"].pixels] == [(60, 80), (30, 40)]
    assert viewer.layers["classes"].colormap[1] == (*(part / 255 for part in class_rgb(1)), 1.0)
    assert (viewer.layers["classes"].visible, viewer.layers["instances"].visible) == (True, False)


def test_without_napari_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "napari", None)
    assert main(["view", "--slide", str(tmp_path), "--mask", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("napari is not installed; pip install 'slidemill[viewer]' [SlidemillError]")
    assert view.run.__doc__
