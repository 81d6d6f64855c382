"""Real files of every format have the pixels, pixel size and channels that an independent reader finds."""

import csv
import re
from collections import defaultdict

import numpy as np
import openslide
import PIL.Image
import pytest
import tifffile
import zarr

from pipeline.base.errors import SlideError
from pipeline.slides.formats.whole_slide import _over_white, level_array
from tests.support.opened_slides import assert_regions_equal_the_whole, opened, pixels_of


def test_an_svs_is_what_openslide_and_tifffile_read(data):
    path = data / "wsi" / "CMU-1-Small-Region.svs"
    found = pixels_of(path)
    with openslide.OpenSlide(path) as slide:
        expected = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(found, tifffile.imread(path).transpose(2, 0, 1))
    with opened(path) as slide:
        assert (slide.shape, slide.pixel_size_um) == ((2967, 2220), (0.499, 0.499))


def test_coarse_levels_of_a_whole_slide_have_one_value_per_pixel(data, generator, monkeypatch):
    """This file of no vendor is read directly, since it has levels."""
    monkeypatch.setattr("pipeline.slides.formats.whole_slide._BLOCK_PX", 32)
    path = data / "formats" / "synthetic" / "openslide_boxes_pyramid.tiff"
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count > 2
        for number in range(slide.level_count):
            level = level_array(slide, number)
            whole = level[:, :, :]
            for _ in range(10):
                rows, columns = (
                    slice(*map(int, np.sort(generator.choice(n + 1, 2, replace=False)))) for n in whole.shape[:2]
                )
                np.testing.assert_array_equal(level[rows, columns, :], whole[rows, columns])
            expected = slide.read_region((0, 0), number, slide.level_dimensions[number]).convert("RGB")
            assert np.abs(whole.astype(int) - np.asarray(expected)).mean() < 1


def test_transparent_pixels_are_white():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51]]], np.uint8)
    assert _over_white(pixels).tolist() == [[[10, 20, 30], [255, 255, 255], [204, 224, 244]]]


def test_a_pyramidal_ome_tiff_is_what_tifffile_reads(data):
    path = data / "formats" / "derived" / "CMU-1-Small-Region_pyramid.ome.tif"
    with opened(path) as slide, tifffile.TiffFile(path) as tiff:
        assert slide.pixel_size_um == (0.499, 0.499)
        assert len(slide.levels) == 3
        for number, level in enumerate(tiff.series[0].levels):
            np.testing.assert_array_equal(slide.read_all(number), level.asarray().transpose(2, 0, 1))


@pytest.mark.parametrize(("z", "t"), [(0, 0), (7, 2), ("max", 1)])
def test_an_nd2_is_its_ome_tiff(data, z, t):
    nd2 = pytest.importorskip("nd2")
    original, derived = data / "formats/nd2/cluster.nd2", data / "formats/derived/cluster_nd2_TZCYX.ome.tif"
    stack = nd2.imread(original)[t]
    expected = stack.max(axis=0) if z == "max" else stack[z]
    for path in (original, derived):
        np.testing.assert_array_equal(pixels_of(path, z=z, t=t, channels=[0, 1]), expected)
    with opened(original, z=z, t=t, channels=["FM 4-64/2% CHAPS"]) as slide:
        np.testing.assert_array_equal(slide.read_all()[0], expected[1])
        assert slide.channel_names == ("FM 4-64/2% CHAPS",)
        assert slide.pixel_size_um == pytest.approx((0.168, 0.168), abs=5e-4)
        with nd2.ND2File(original) as file:
            assert slide.choice.image.z_step_um == file.voxel_size().z > 0


def test_a_lif_is_what_liffile_reads(data):
    liffile = pytest.importorskip("liffile")
    path = data / "formats/lif/LeicaLASX_wavelength-sweep_example.lif"
    with liffile.LifFile(path) as file:
        expected = {image.name: image.asarray() for image in file.images}
    found = pixels_of(path, series="x_y_z_t_lambdaEmi", t=1, z=5, channels=[9, 0])
    np.testing.assert_array_equal(found, expected["x_y_z_t_lambdaEmi"][1, [9, 0], 5])
    np.testing.assert_array_equal(pixels_of(path, series=1, channels=[14])[0], expected["x_y_lambdaExc"][14])
    with opened(path) as slide:  # 64 px over 6.6 µm
        assert slide.pixel_size_um == pytest.approx((6.6033e-6 / 63 * 1e6,) * 2, rel=1e-4)


@pytest.mark.parametrize(("colour", "dtype"), [(False, np.uint16), (False, np.float32), (True, np.uint8)])
def test_a_czi_is_what_was_written(tmp_path, generator, colour, dtype):
    """Two scenes of two channels and three planes at two times, none at the origin."""
    czi = pytest.importorskip("pylibCZIrw.czi")
    shape = (2, 2, 2, 3, 40, 50, 3 if colour else 1)  # scene, time, channel, plane
    stored = (generator.random(shape) * 200).astype(dtype)
    with czi.create_czi(str(tmp_path / "x.czi")) as file:
        for scene, time, channel, plane in np.ndindex(*shape[:4]):
            place = {"location": (-7 + 500 * scene, 300), "plane": {"C": channel, "Z": plane, "T": time}}
            file.write(stored[scene, time, channel, plane], **place, scene=scene)
        file.write_metadata("x", channel_names={0: "DAPI", 1: "GFP"}, scale_x=0.25e-6, scale_y=0.5e-6)
    if colour:
        with pytest.raises(SlideError, match="2 channels of 3 colours each"):
            pixels_of(tmp_path / "x.czi", z=0, t=0)
        return
    for scene in (0, 1):
        with opened(tmp_path / "x.czi", z="max", t=1, series=f"scene {scene}", channels=["GFP", "DAPI"]) as slide:
            np.testing.assert_array_equal(slide.read_all(), stored[scene, 1, ::-1, ..., 0].max(axis=1))
            assert slide.pixel_size_um == pytest.approx((0.5, 0.25))
            assert slide.channel_names == ("GFP", "DAPI")
            assert_regions_equal_the_whole(slide, generator)
    np.testing.assert_array_equal(pixels_of(tmp_path / "x.czi", z=2, t=0), stored[0, 0, :1, 2, ..., 0])


def test_a_czi_in_colour_is_rgb(tmp_path, generator):
    czi = pytest.importorskip("pylibCZIrw.czi")
    stored = generator.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    with czi.create_czi(str(tmp_path / "x.czi")) as file:
        file.write(stored)
    np.testing.assert_array_equal(pixels_of(tmp_path / "x.czi"), stored[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [">u2", ">i2", ">f4", ">f8"])
@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
def test_pixels_have_the_byte_order_of_the_machine(tmp_path, dtype, suffix):
    pixels, path = np.arange(42).reshape(6, 7).astype(dtype), tmp_path / f"x{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, pixels, byteorder=">")
    else:
        group = zarr.create_group(path, zarr_format=2)
        group.create_array("0", data=pixels)
        group.attrs["multiscales"] = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]
    with opened(path) as slide:
        found = slide.read(slice(1, 5), slice(2, 7))
        assert found.dtype == slide.plane().dtype == pixels.dtype.newbyteorder("=")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found[0], pixels[1:5, 2:7])


def test_ome_tiff_and_bioformats2raw_of_one_image_are_equal(data):
    formats = data / "formats"
    expected = pixels_of(formats / "ome_tiff/multi-channel.ome.tif")
    np.testing.assert_array_equal(pixels_of(formats / "ome_zarr/bioformats2raw-zarr/data.zarr"), expected)
    assert expected.shape == (3, 167, 439)


def test_a_companion_file_opens_its_set_as_one_stack(data):
    folder = data / "formats/ome_tiff/multifile"
    planes = [tifffile.imread(folder / f"multifile-Z{number}.ome.tiff") for number in range(1, 6)]
    for z, plane in enumerate(planes):
        np.testing.assert_array_equal(pixels_of(folder / "multifile.companion.ome", z=z)[0], plane)


def test_an_imagej_hyperstack_is_what_tifffile_reads(data):
    path = data / "formats/imagej/xyzct-mitosis.tif"
    np.testing.assert_array_equal(pixels_of(path, t=2, z=4, channels=[1, 0]), tifffile.imread(path)[2, 4][[1, 0]])
    with opened(path, t=0, z="max") as slide:
        assert slide.pixel_size_um == pytest.approx((0.0885, 0.0885), rel=1e-3)


def test_tiff_variants_read_as_pillow_reads_them(data):
    """Pillow is another decoder. It does not read all, and scales few-bit pixels to 8 bits; those are left out."""
    folder = data / "formats/tiff_variants"
    same = 0
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["bits"] in ("1", "8", "16") and row["sampleformat"] == "1"]
    for row in rows:
        try:
            found = pixels_of(folder / row["path"])
            with PIL.Image.open(folder / row["path"]) as picture:
                expected = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
                if picture.mode not in ("1", "L", "I;16", "I;16B", "RGB") or expected.shape != found.shape:
                    continue
        except (SlideError, OSError, SyntaxError, ValueError):
            continue
        if found.dtype.itemsize == expected.dtype.itemsize:
            np.testing.assert_array_equal(found, expected, err_msg=row["path"])
            same += 1
    assert same > 50


def test_all_tiff_variants_of_one_image_have_equal_pixels(data):
    """The names of these files end in a hash of their pixels: byte orders, predictors, strips, tiles, white as 0."""
    alike = defaultdict(list)
    for path in (data / "formats/tiff_variants/image-tiff/seq").iterdir():
        try:
            alike[re.search(r"-([0-9a-f]{8})\.", path.name)[1]].append(pixels_of(path))
        except SlideError as error:
            assert re.search("SEPARATED|planes along axis Z|uint64|int64", str(error)), error
    assert sum(len(images) for images in alike.values()) > 60
    for images in alike.values():
        for image in images[1:]:
            np.testing.assert_array_equal(image, images[0])


@pytest.mark.parametrize("name", ["png_named_tif.tif", "tiff_named_png.png"])
def test_the_format_follows_from_the_content(data, name):
    with PIL.Image.open(data / "bad/crafted" / name) as picture:
        np.testing.assert_array_equal(pixels_of(data / "bad/crafted" / name)[0], np.asarray(picture))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16), "compression": "lzw"}])
def test_each_file_of_a_set_is_its_own_position(tmp_path, generator, options):
    """One OME-TIFF per position, each with the OME-XML of all; files and headers differ in length."""
    names = [f"a_{position}_{'x' * 40 * position}.ome.tif" for position in range(3)]
    pixels = [(generator.integers(0, 9 * 20**number, (32, 48))).astype(np.uint16) for number in range(3)]
    ids = [f"urn:uuid:0000000{number}-0000-4000-8000-000000000000" for number in range(3)]
    images = "".join(
        f'<Image ID="Image:{number}" Name="Pos{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" '
        f'Type="uint16" SizeX="48" SizeY="32" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{number + 1}" '
        f'PhysicalSizeY="{number + 1}"><Channel ID="Channel:{number}:0" Name="C{number}" SamplesPerPixel="1"/>'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">{ids[number]}</UUID></TiffData></Pixels></Image>'
        for number, name in enumerate(names)
    )
    for number, name in enumerate(names):
        xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[number]}">{images}</OME>'
        tifffile.imwrite(tmp_path / name, pixels[number], description=xml, metadata=None, **options)
    for number, name in enumerate(names):
        with opened(tmp_path / name) as slide:
            np.testing.assert_array_equal(slide.read_all()[0], pixels[number])
            assert slide.pixel_size_um == (number + 1, number + 1)
            assert slide.channel_names == (f"C{number}",)
        with pytest.raises(SlideError, match=f"its names: 'Pos{number}'"):
            pixels_of(tmp_path / name, series=f"Pos{(number + 1) % 3}")


def test_palettes_become_rgb_and_white_stored_as_zero_is_inverted(tmp_path):
    numbers = np.array([[0, 1], [2, 1]], np.uint8)
    palette = np.zeros((3, 256), np.uint16)
    palette[:, 1], palette[:, 2] = (257, 514, 771), (65535, 0, 257)
    tifffile.imwrite(tmp_path / "palette.tif", numbers, photometric="palette", colormap=palette)
    expected = [[[0, 1], [255, 1]], [[0, 2], [0, 2]], [[0, 3], [1, 3]]]
    np.testing.assert_array_equal(pixels_of(tmp_path / "palette.tif"), expected)
    tifffile.imwrite(tmp_path / "white.tif", numbers, photometric="miniswhite")
    np.testing.assert_array_equal(pixels_of(tmp_path / "white.tif")[0], [[255, 254], [253, 254]])


@pytest.mark.parametrize(("mode", "quality"), [("L", 90), ("RGB", 90)])
def test_a_jpeg_is_what_pillow_reads(tmp_path, generator, mode, quality):
    drawn = generator.integers(0, 255, (30, 20, len(mode))).astype(np.uint8).squeeze()
    PIL.Image.fromarray(drawn, mode).save(tmp_path / "x.jpg", quality=quality)
    with PIL.Image.open(tmp_path / "x.jpg") as picture:
        expected = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels_of(tmp_path / "x.jpg"), expected)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:-100])
    with pytest.raises(SlideError, match="cut.jpg: cannot be read: .*truncated"):
        pixels_of(tmp_path / "cut.jpg")


def test_cmyk_is_refused(tmp_path):
    PIL.Image.new("CMYK", (8, 8)).save(tmp_path / "x.jpg")
    PIL.Image.new("CMYK", (8, 8)).save(tmp_path / "x.tif")
    for name, stored in (("x.jpg", "CMYK"), ("x.tif", "SEPARATED")):
        with pytest.raises(SlideError, match=f"colours stored as {stored} cannot be read; save it in grey or RGB"):
            pixels_of(tmp_path / name)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pylibCZIrw", None)
    monkeypatch.delitem(__import__("sys").modules, "pipeline.slides.formats.czi", raising=False)
    (tmp_path / "x.czi").write_bytes(b"ZISRAWFILE" + bytes(100))
    with pytest.raises(SlideError, match=r"pylibCZIrw .* is not installed; pip install 'slidemill\[microscopes\]'"):
        pixels_of(tmp_path / "x.czi")


@pytest.mark.parametrize(
    ("step", "unit", "expected"),
    [
        ("2", "µm", 2.0),
        ("2", "mm", 2000.0),
        ("0", "µm", None),
        ("x", "µm", None),
        ("2", "pixel", None),
        (None, "", None),
    ],
)
def test_the_distance_between_planes_is_known_or_not(tmp_path, step, unit, expected):
    pixels = np.ones((3, 8, 9), np.uint8)
    known = {"PhysicalSizeZ": step, "PhysicalSizeZUnit": unit} if step else {}
    about = {"axes": "ZYX"} | known
    tifffile.imwrite(tmp_path / "x.ome.tif", pixels, ome=True, metadata=about, photometric="minisblack")
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=2)
    group.create_array("0", data=pixels)
    axes = [{"name": "z"} | ({"unit": unit} if unit else {}), {"name": "y"}, {"name": "x"}]
    scale = [float(step) if step in {"0", "2"} else -1, 1, 1]
    steps = [{"type": "scale", "scale": scale}] if step else []
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    for name in ("x.ome.tif", "x.zarr"):
        with opened(tmp_path / name, z=1) as slide:
            assert slide.choice.image.z_step_um == expected
