"""Slides open, regions equal the whole, and any error of a file is one line that names it."""

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile

from pipeline.base.errors import SlideError
from pipeline.slides.formats.image import unit_um
from pipeline.slides.formats.ome_xml import UNUSABLE
from pipeline.slides.slide import open_plane, open_slide

MEMORY_MB = 500


def _sizes(axis, size, unit):
    return {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}


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
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (118.11, 118.11), "resolutionunit": "CENTIMETER"}, None),  # 300 dpi
        ({"resolution": (300, 300), "resolutionunit": "NONE", "imagej": True, "metadata": {"unit": "inch"}}, None),
        (
            {"resolution": (4, 2), "resolutionunit": "NONE", "imagej": True, "metadata": {"unit": "microns"}},
            (0.5, 0.25),
        ),
        ({"resolution": (50, 25), "resolutionunit": "NONE", "imagej": True, "metadata": {"unit": "mm"}}, (40.0, 20.0)),
        *(
            ({"ome": True, "metadata": _sizes("X", 1, unit) | _sizes("Y", 2, unit)}, (2 * um, um))
            for unit, um in (("\u00b5m", 1), ("\u03bcm", 1), ("mm", 1000), ("\u00c5", 1e-4), ("in", 25_400), ("m", 1e6))
        ),
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


@pytest.mark.parametrize(
    ("name", "um"),
    [
        *(("\u00b5m", 1), ("\u03bcm", 1), ("um", 1), ("micron", 1), ("Micrometer", 1), ("micrometre", 1), ("nm", 1e-3)),
        *(("nanometers", 1e-3), ("pm", 1e-6), ("Mm", 1e12), ("mm", 1e3), ("\u212b", 1e-4), ("angstrom", 1e-4)),
        *(("inches", 25_400), ("cm", 1e4), ("kilometer", 1e9), ("pixel", None), ("", None), ("reference frame", None)),
    ],
)
def test_units_of_length(name, um):
    assert unit_um(name) == um


OF_ANOTHER = (  # an image of 99 planes
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" SizeY="8" SizeZ="99" '
    'SizeC="1" SizeT="1"><TiffData IFD="7" PlaneCount="1"/></Pixels></Image>'
)


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (
            {"resolution": (300, 300), "resolutionunit": "INCH"},
            "its resolution of 300 dpi (84.67 \u00b5m) is that of a printer, not taken as the pixel size",
        ),
        (
            {"ome": True, "metadata": _sizes("X", 1, "pixel") | _sizes("Y", 1, "pixel")},
            "it states a pixel size that is ignored: 1 pixel x 1 pixel",
        ),
        ({"ome": True, "metadata": _sizes("X", 1, "mm")}, "it states a pixel size that is ignored: unknown x 1 mm"),
        (
            {"resolution": (4, 2), "resolutionunit": "NONE", "imagej": True, "metadata": {"unit": "furlong"}},
            "it states a pixel size that is ignored: in the unit 'furlong'",
        ),
        (
            {"extratags": [(274, "H", 1, 6, True)]},
            "the file asks to be shown rotated or mirrored (orientation 6); read as it is stored",
        ),
        ({"description": "<?xml?><OME><Image><Pixels SizeX='90'/>", "metadata": None}, UNUSABLE.warnings[0]),
        ({"description": "<?xml?><OME>" + OF_ANOTHER + "</OME>", "metadata": None}, UNUSABLE.warnings[0]),
        ({"resolution": (1, 1), "resolutionunit": "NONE", "imagej": True, "metadata": {"unit": "pixel"}}, None),
        ({"extratags": [(274, "H", 1, 1, True)]}, None),
        ({}, None),
    ],
)
def test_what_a_file_says_and_is_not_followed_is_a_warning(tmp_path, options, warning):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 9), np.uint8), **options)
    with open_slide(tmp_path / "x.tif", memory_mb=MEMORY_MB) as slide:
        assert slide.shape == (8, 9)
        assert slide.inspect() == ((warning,) if warning else ())


@pytest.mark.parametrize("stated", [(0, 1), (1, 0), (300, 0), (0, 0)])
def test_a_resolution_that_is_no_number_is_no_pixel_size_and_a_warning(tmp_path, stated):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 9), np.uint8), resolution=(2, 3), resolutionunit="CENTIMETER")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+b") as file:
        file.pages[0].tags["XResolution"].overwrite(stated)
    with open_slide(tmp_path / "x.tif", memory_mb=MEMORY_MB) as slide:
        assert slide.pixel_size_um is None
        said = f"a resolution of {stated[0]}/{stated[1]} x 3/1 pixels per cm"
        assert slide.inspect() == (f"it states a pixel size that is ignored: {said}",)


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_the_orientation_of_exif_is_a_warning(tmp_path, name):
    exif = PIL.Image.Exif()
    exif[274] = 8
    PIL.Image.new("L", (9, 8)).save(tmp_path / name, exif=exif)
    with open_slide(tmp_path / name, memory_mb=MEMORY_MB) as slide:
        assert slide.shape == (8, 9)
        assert "orientation 8" in slide.inspect()[0]


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
        ("text.tif", b"This is no image", "no image: its first bytes are those of no known format"),
        ("short.png", b"\x89PNG\r\n\x1a\n", "the PNG is cut short within its header"),
        ("header.tif", b"II*\0\x08\0\0\0", "the TIFF has a header but no image"),
        ("x.companion.ome", b"<OME/>", "it names no TIFF file"),
        ("y.companion.ome", b'<UUID FileName="gone.tif"/>', "its file gone.tif is not in the same folder"),
    ],
)
def test_a_bad_file_gives_one_line_that_names_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    check_refused(tmp_path / name, f"{name}: .*{message}")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            IndexError("string index out of range"),
            r"damaged, or not as files of its format are \(IndexError\); fix, replace",
        ),
        (
            TypeError("'NoneType' object is not subscriptable"),
            r"damaged, or not as files of its format are \(TypeError\)",
        ),
        (KeyError("shape"), r"damaged, or not as files of its format are \(KeyError\)"),
        (b"\xff".decode, r"damaged, or not as files of its format are \(UnicodeDecodeError\)"),
        (ValueError(), r"damaged, or not as files of its format are \(ValueError\)"),
        (ValueError(rf"bad magic {bytes(4)} in {object()}"), r"bad magic \(...\) in \(...\); fix, replace"),
        (ValueError("x" * 1000), "x{400} ...; fix, replace"),
        (ValueError("too dark;\nlight it"), "too dark; light it$"),
        (OSError(5, "Input/output error"), "Input/output error; fix, replace"),
        (
            lambda: imagecodecs.zlib_decode(b"no zlib"),
            r"compressed data are damaged \(inflate returned \w+\); fix, replace",
        ),
    ],
)
def test_the_reason_of_a_damaged_file_is_in_words(tmp_path, monkeypatch, error, reason):
    def lose_the_way(*_):
        raise error if isinstance(error, Exception) else AssertionError(error())

    monkeypatch.setattr("pipeline.slides.slide.open_series", lose_the_way)
    check_refused(tmp_path / "a.tif", f"^{tmp_path}/a.tif: cannot be read: {reason}")


def test_a_missing_file_is_named(tmp_path):
    check_refused(tmp_path / "gone.tif", "gone.tif: cannot be read: No such file")


def test_a_file_cut_short_is_found_from_its_header(tmp_path, generator):
    tifffile.imwrite(tmp_path / "x.tif", generator.integers(0, 255, (64, 64)).astype(np.uint8))
    whole = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(whole[:-100])
    check_refused(tmp_path / "x.tif", f"cut short: its data end at byte {len(whole)}, but it has {len(whole) - 100}")


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, None])
def test_a_whole_slide_cut_short_is_refused_wherever_it_is_cut(data, tmp_path, share):
    """The pixels may be there, but not the levels, or the pixel size; None: only the last byte is missing."""
    whole = (data / "wsi" / "CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "x.svs").write_bytes(whole[: int(share * len(whole)) if share else -1])
    check_refused(tmp_path / "x.svs", "x.svs is cut short: its header points beyond its .* bytes; copy it again")


def test_a_pyramid_whose_coarse_level_is_cut_off_is_refused(tmp_path, generator):
    pixels = generator.integers(0, 255, (64, 64)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(pixels, tile=(32, 32))
        file.write(pixels[::2, ::2], subfiletype=1, tile=(32, 32))
    content = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(content[:-200])
    check_refused(tmp_path / "x.tif", "cut short")


def test_stacks_and_other_types_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "stack.ome.tif", np.zeros((5, 8, 8), np.uint8), metadata={"axes": "ZYX"})
    check_refused(tmp_path / "stack.ome.tif", "5 planes along axis Z; a label image has one: save that of its slide")
    tifffile.imwrite(tmp_path / "complex.tif", np.zeros((8, 8), np.complex64))
    check_refused(tmp_path / "complex.tif", "pixels of type complex64 cannot be read")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    check_refused(tmp_path / "rgb.tif", "a label image has 1 channel, this file has 3", by=open_plane)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(data):
    bomb = data / "bad" / "crafted" / "decompression_bomb_900MB.tif"
    check_refused(bomb, "decodes to 900 MB, the limit is 500 MB .tiling.memory_mb.")
