"""Slides open, regions equal the whole, and any error of a file is one line that names it."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from pipeline.base.errors import SlideError
from pipeline.slides.slide import open_plane, open_slide

MEMORY_MB = 500


def read(path):
    with open_slide(path, memory_mb=MEMORY_MB) as slide:
        return slide.read_all()


def check_refused(path, message, *, by=open_slide):
    """Check that a file cannot be opened, before any pixel is read."""
    with pytest.raises(SlideError, match=message), by(path, memory_mb=MEMORY_MB):
        pass


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((50, 40), {}),
        ((50, 40), {"tile": (16, 16)}),
        ((50, 40), {"rowsperstrip": 7, "compression": "lzw"}),
        ((50, 40, 3), {"photometric": "rgb", "compression": "zlib"}),
        ((3, 50, 40), {"photometric": "rgb", "planarconfig": "separate"}),
        ((4, 50, 40), {"metadata": {"axes": "CYX"}, "ome": True}),
        ((50, 40), {"bigtiff": True}),
        ((2, 50, 40), {"metadata": {"axes": "CYX"}, "ome": True, "tile": (16, 32)}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kept_mb", [256, 0])
def test_a_tiff_is_what_was_written_and_so_are_its_regions(
    tmp_path, generator, monkeypatch, shape, options, dtype, kept_mb
):
    """Both for a level that is kept in memory and for one that is decoded piece by piece."""
    monkeypatch.setattr("pipeline.slides.formats.tiff._KEPT_MB", kept_mb)
    pixels = (generator.random(shape) * 200).astype(dtype)
    path = tmp_path / ("x.ome.tif" if options.get("ome") else "x.tif")
    tifffile.imwrite(path, pixels, **options)
    expected = np.atleast_3d(pixels).transpose(2, 0, 1) if shape[-1] == 3 or len(shape) == 2 else pixels
    with open_slide(path, memory_mb=MEMORY_MB) as slide:
        assert (slide.shape, slide.channels) == ((50, 40), len(expected))
        for region in (np.s_[:50, :40], np.s_[0:1, 0:40], np.s_[15:48, 31:33], np.s_[49:50, 35:40]):
            np.testing.assert_array_equal(slide.read(*region), expected[:, *region])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_keeps_its_bits(tmp_path, generator, dtype, channels):
    pixels = generator.integers(0, np.iinfo(dtype).max, (30, 20, channels)).astype(dtype).squeeze()
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(pixels))
    np.testing.assert_array_equal(read(tmp_path / "x.png"), np.atleast_3d(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (50_800, 25_400), "resolutionunit": "INCH"}, (1.0, 0.5)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),  # a printer's
        ({"resolution": (4, 2), "resolutionunit": "NONE", "imagej": True, "metadata": {"unit": "um"}}, (0.5, 0.25)),
        ({"resolution": (4, 2), "resolutionunit": "NONE"}, None),
        (
            {"ome": True, "metadata": {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}},
            (0.5, 0.25),
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": -1, "PhysicalSizeY": 0.5}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 1, "PhysicalSizeXUnit": "parsec", "PhysicalSizeY": 1}}, None),
    ],
)
def test_the_pixel_size_is_in_micrometres_rows_first(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8), np.uint8), **options)
    with open_slide(tmp_path / "x.tif", memory_mb=MEMORY_MB) as slide:
        assert slide.pixel_size_um == (pytest.approx(expected) if expected else None)


def test_levels_of_a_pyramid_are_found_finest_first(data):
    with open_slide(_pyramid(data), memory_mb=MEMORY_MB) as slide:
        sizes = [level.shape[1] * level.shape[2] for level in slide.levels]
        assert len(sizes) > 1
        assert sizes == sorted(sizes, reverse=True)


def _pyramid(data):
    paths = sorted(path for path in (data / "formats").rglob("*.ome.tif*"))
    for path in paths:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.series[0].levels) > 1:
                return path
    raise AssertionError("the data set has a pyramidal OME-TIFF")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.tif", b"", "empty .0 bytes.; copy it again"),
        ("text.tif", b"This is no image", "no image: it begins with b'This is ', unlike any known format"),
        ("short.png", b"\x89PNG\r\n\x1a\n", "the PNG is cut short within its header"),
        ("header.tif", b"II*\0\x08\0\0\0", "the TIFF has a header but no image"),
        ("x.companion.ome", b"<OME/>", "it names no TIFF file"),
        ("y.companion.ome", b'<UUID FileName="gone.tif"/>', "its file gone.tif is not in the same folder"),
    ],
)
def test_a_bad_file_gives_one_line_that_names_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    check_refused(tmp_path / name, f"{name}: .*{message}")


def test_a_missing_file_is_named(tmp_path):
    check_refused(tmp_path / "gone.tif", "gone.tif: cannot be read: No such file")


def test_a_file_cut_short_is_found_from_its_header(tmp_path, generator):
    tifffile.imwrite(tmp_path / "x.tif", generator.integers(0, 255, (64, 64)).astype(np.uint8))
    whole = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(whole[:-100])
    check_refused(tmp_path / "x.tif", f"cut short: its data end at byte {len(whole)}, but it has {len(whole) - 100}")


def test_stacks_and_other_types_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "stack.ome.tif", np.zeros((5, 8, 8), np.uint8), metadata={"axes": "ZYX"})
    check_refused(tmp_path / "stack.ome.tif", "5 planes along axis Z; choose with image.z .0 to 4, or max.")
    tifffile.imwrite(tmp_path / "complex.tif", np.zeros((8, 8), np.complex64))
    check_refused(tmp_path / "complex.tif", "pixels of type complex64 cannot be read")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    check_refused(tmp_path / "rgb.tif", "a label image has 1 channel, this file has 3", by=open_plane)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(data):
    bomb = data / "bad" / "crafted" / "decompression_bomb_900MB.tif"
    check_refused(bomb, "decodes to 900 MB, the limit is 500 MB .tiling.memory_mb.")
