"""Colour images are read in colour, and a difference between training and slides is found before the first job."""

import json
import warnings

import numpy as np
import PIL.Image
import pytest
import tifffile

from pipeline.base.errors import SlidemillError
from pipeline.project.channels import header_channels, with_channels
from pipeline.settings.schema import parse_settings
from pipeline.slides.slide import SlideError, open_slide

GREY, COLOUR = np.zeros((8, 9), np.uint8), np.zeros((8, 9, 3), np.uint8)
SETTINGS = {"classes": ["background", "cell"], "models": {"unet": {}}}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A grey and a colour file, and a network of one channel."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("grey.tif", GREY)
    tifffile.imwrite("colour.tif", COLOUR, photometric="rgb")
    tifffile.imwrite("stack.ome.tif", np.zeros((3, 8, 9), np.uint8), metadata={"axes": "CYX"})
    (tmp_path / "model.json").write_text(json.dumps({"in_channels": 1}))
    return tmp_path


def chosen(files, images, slides, **settings):
    found, lines = with_channels(
        parse_settings(SETTINGS | settings, source=""),
        [files / name for name in images],
        [files / name for name in slides],
    )
    return found.image.channels, lines


def test_all_colours_are_read_where_training_images_and_slides_are_rgb(files):
    channels, lines = chosen(files, ["colour.tif"] * 2, ["colour.tif"])
    assert channels == [0, 1, 2]
    (line,) = lines
    assert "image.channels is not set: the three colours are read, as of " in line
    assert "colour.tif" in line


@pytest.mark.parametrize("image", ["grey.tif", "stack.ome.tif", "none.tif"])
def test_else_the_first_channel_is_read(files, image):
    assert chosen(files, [image], ["grey.tif"]) == ([0], [])


def test_channels_that_are_set_are_read(files):
    assert chosen(files, ["colour.tif"], ["grey.tif", "colour.tif"], image={"channels": [1]}) == ([1], [])


@pytest.mark.parametrize(
    ("images", "slides"), [(["colour.tif", "grey.tif"], []), (["colour.tif"], ["grey.tif"]), ([], ["grey.tif"])]
)
def test_a_channel_that_no_slide_or_not_every_training_image_has_is_refused(files, images, slides):
    with pytest.raises(SlidemillError, match=r"image.channels: no channel 2: .*grey.tif has 1 channel, counted from 0"):
        chosen(files, images, slides, image={"channels": [0, 2]})
    chosen(files, images, slides, image={"channels": [0, 2], "pages": "channels"})


@pytest.mark.parametrize(
    ("images", "slides", "message"),
    [
        (["colour.tif", "grey.tif"], [], "colour.tif has 3 channels, .*grey.tif has 1 channel; set image.channels"),
        (["grey.tif"], ["colour.tif"], "grey.tif has 1 channel, .*colour.tif has 3 channels; set image.channels"),
        (["colour.tif"], ["grey.tif"] * 2, "colour.tif has 3 channels, .*grey.tif has 1 channel; set image.channels"),
    ],
)
def test_a_difference_is_an_error_with_both_numbers(files, images, slides, message):
    with pytest.raises(SlidemillError, match=message):
        chosen(files, images, slides)


def test_a_network_of_the_user_decides_like_training_images(files):
    models = {"mine": {"checkpoint": str(files / "model.safetensors")}}
    assert chosen(files, [], ["grey.tif"], models=models) == ([0], [])
    with pytest.raises(SlidemillError, match=r"models.mine.checkpoint has 1 channel, .*colour.tif has 3 channels"):
        chosen(files, [], ["colour.tif"], models=models)


def test_a_slide_of_many_that_differs_is_named(files):
    channels, lines = chosen(files, ["grey.tif"], ["grey.tif"] * 9 + ["colour.tif"])
    assert channels == [0]
    assert "1 of 10 slides looked at differ: " in lines[0]
    assert lines[0].endswith("colour.tif has 3 channels")


def pictures(folder):
    palette = PIL.Image.fromarray(COLOUR).quantize(4)
    grey_alpha = PIL.Image.fromarray(GREY).convert("LA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, image in {
            "grey": PIL.Image.fromarray(GREY),
            "rgb": PIL.Image.fromarray(COLOUR),
            "palette": palette,
            "rgba": PIL.Image.fromarray(COLOUR).convert("RGBA"),
            "grey_alpha": grey_alpha,
            "deep": PIL.Image.fromarray(GREY.astype(np.uint16)),
        }.items():
            image.save(folder / f"{name}.png")
    PIL.Image.fromarray(GREY).save(folder / "grey.jpg")
    PIL.Image.fromarray(COLOUR).save(folder / "rgb.jpg", exif=PIL.Image.Exif())
    for big in (False, True):
        for order in "<>":
            how = {"bigtiff": big, "byteorder": order}
            tifffile.imwrite(folder / f"grey{big}{ord(order)}.tif", GREY, **how)
            tifffile.imwrite(folder / f"rgb{big}{ord(order)}.tif", COLOUR, photometric="rgb", **how)
            tifffile.imwrite(folder / f"planar{big}{ord(order)}.tif", COLOUR.T, photometric="rgb", **how)
    tifffile.imwrite(folder / "channels.tif", np.zeros((2, 8, 9), np.uint8), imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(folder / "palette.tif", GREY, photometric="palette", colormap=np.zeros((3, 256), np.uint16))


def test_what_a_header_says_is_what_the_reader_finds(tmp_path):
    pictures(tmp_path)
    told = {path.name: header_channels(path) for path in tmp_path.iterdir()}
    for name, count in told.items():
        with open_slide(tmp_path / name, memory_mb=100) as slide:
            assert count is None or slide.channels - count == (name in ("rgba.png", "grey_alpha.png")), name
    assert [name for name, count in told.items() if count is None] == ["channels.tif"]


def test_real_files_are_what_their_headers_say(data):
    """Slides of scanners, and 181 variants of TIFF."""
    assert header_channels(data / "wsi" / "CMU-1-Small-Region.svs") == 3
    checked = 0
    for path in sorted((data / "formats" / "tiff_variants").rglob("*.tif*")):
        if (count := header_channels(path)) is None:
            continue
        try:
            with open_slide(path, memory_mb=100) as slide:
                assert slide.channels - count in (0, 1), path  # one more: opacity
        except SlideError:
            continue
        checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\xff\xff\xff\xff", b"II"]
)
def test_damaged_files_and_folders_are_left_to_the_reader(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert header_channels(tmp_path / "a.tif") is None
    assert header_channels(tmp_path) is None
    assert header_channels(tmp_path / "none.tif") is None


def test_any_truncation_is_left_to_the_reader(files):
    content = (files / "colour.tif").read_bytes()
    for end in range(len(content)):
        (files / "cut.tif").write_bytes(content[:end])
        assert header_channels(files / "cut.tif") in (None, 1, 3)
