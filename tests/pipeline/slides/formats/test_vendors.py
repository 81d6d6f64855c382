"""Files of microscopes and scanners are read by what they say: axes in any order, levels as stored, names, units."""

import struct
from itertools import pairwise

import numpy as np
import openslide
import pytest
import tifffile

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import open_slide

AXES = {"X": 1, "Y": 2, "Z": 3, "T": 4}  # their numbers in LIF
LENGTHS = {"X": 9, "Y": 7, "Z": 5, "T": 3}
STEP_UM = 0.5


def text(value):
    encoded = value.encode("utf-16-le")
    return b"\x2a" + struct.pack("<I", len(encoded) // 2) + encoded


def write_lif(path, axes):
    """Write a LIF file with one series, scanned along ``axes``, the fastest first (``xzy``); return its pixels."""
    lengths = [LENGTHS[axis] for axis in axes.upper()]
    pixels = np.arange(np.prod(lengths), dtype=np.uint8).reshape(lengths[::-1])
    strides = np.cumprod([1, *lengths[:-1]])
    dimensions = "".join(
        f'<DimensionDescription DimID="{AXES[axis]}" NumberOfElements="{length}" Origin="0" '
        f'Length="{(length - 1) * STEP_UM * 1e-6}" Unit="m" BitInc="0" BytesInc="{stride}"></DimensionDescription>'
        for axis, length, stride in zip(axes.upper(), lengths, strides, strict=True)
    )
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="file" UniqueID="a"><Data/><Memory Size="0" '
        'MemoryBlockID="MemBlock_0"/><Children><Element Name="scan" UniqueID="b"><Data><Image TextDescription="">'
        '<ImageDescription><Channels><ChannelDescription DataType="0" ChannelTag="0" Resolution="8" '
        'NameOfMeasuredQuantity="" Min="0" Max="255" Unit="" LUTName="Gray" IsLUTInverted="0" '
        'BytesInc="0" BitInc="0"></ChannelDescription></Channels><Dimensions>'
        f"{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_1"/><Children/></Element></Children></Element>'
        "</LMSDataContainerHeader>"
    )
    header = text(xml)
    name = text("MemBlock_1")
    block = b"\x2a" + struct.pack("<Q", pixels.nbytes) + name
    path.write_bytes(
        struct.pack("<II", 0x70, len(header)) + header + struct.pack("<II", 0x70, len(block)) + block + pixels.tobytes()
    )
    return pixels


@pytest.mark.parametrize("axes", ["xy", "xyz", "xyzt", "xzy", "xzyt", "xytz", "yx", "zxy", "yxz"])
def test_a_lif_series_is_read_by_its_axes(tmp_path, axes):
    pytest.importorskip("liffile")
    pixels = write_lif(tmp_path / "a.lif", axes)
    at = {"Z": 3, "T": 2}
    expected = pixels[tuple(at.get(axis, slice(None)) for axis in axes[::-1].upper())]
    if axes.index("y") < axes.index("x"):
        expected = expected.T
    view = ImageConfig(**{axis.lower(): at[axis] for axis in at if axis in axes.upper()})
    with open_slide(tmp_path / "a.lif", memory_mb=100, view=view) as slide:
        np.testing.assert_array_equal(slide.read_all()[0], expected)
        np.testing.assert_array_equal(slide.read(slice(2, 5), slice(1, 8))[0], expected[2:5, 1:8])
        assert slide.pixel_size_um == pytest.approx((STEP_UM, STEP_UM))


def test_the_rows_of_a_section_along_x_and_z_are_z(tmp_path):
    pytest.importorskip("liffile")
    pixels = write_lif(tmp_path / "a.lif", "xzt")
    with open_slide(tmp_path / "a.lif", memory_mb=100, view=ImageConfig(t=1)) as slide:
        np.testing.assert_array_equal(slide.read_all()[0], pixels[1])
        assert slide.pixel_size_um == pytest.approx((STEP_UM, STEP_UM))


@pytest.fixture
def aperio(tmp_path, generator):
    """A slide whose resolutions differ by 3.01 and 7.05 times, of JPEG tiles of 16 px."""
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as tiff:
        for number, (rows, columns) in enumerate([(400, 303), (133, 101), (57, 43)]):
            about = f"Aperio Image Library v11\r\n303x400 -> {columns}x{rows}|AppMag = 20|MPP = 0.5"
            pixels = generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
            tiff.write(
                pixels,
                tile=(16, 16),
                compression="jpeg",
                photometric="rgb",
                description=about,
                metadata=None,
                subfiletype=int(number > 0),
            )
    return path


@pytest.mark.parametrize("level", [0, 1, 2])
def test_any_block_of_a_level_equals_the_whole(aperio, level):
    view = ImageConfig(channels=[0, 1, 2])
    with openslide.OpenSlide(aperio) as whole, open_slide(aperio, memory_mb=100, view=view) as slide:
        expected = np.asarray(whole.read_region((0, 0), level, whole.level_dimensions[level]).convert("RGB"))
        rows, columns = expected.shape[:2]
        for top, bottom in pairwise([0, 13, rows // 2, rows]):
            for left, right in pairwise([0, 5, columns // 3, columns]):
                block = slide.read(slice(top, bottom), slice(left, right), level)
                np.testing.assert_array_equal(block.transpose(1, 2, 0), expected[top:bottom, left:right])


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_the_finest_level_of_a_jpeg_slide_is_that_of_openslide(tmp_path, generator, photometric):
    pixels = generator.integers(0, 256, (130, 200, 3), dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    about = {"description": "Aperio Image Library v11\r\n400x260", "metadata": None}
    tifffile.imwrite(tmp_path / "a.svs", pixels, tile=(240, 240), compression="jpeg", photometric=photometric, **about)
    with openslide.OpenSlide(tmp_path / "a.svs") as whole:
        expected = np.asarray(whole.read_region((0, 0), 0, whole.dimensions).convert("RGB"))
    with open_slide(tmp_path / "a.svs", memory_mb=100) as slide:
        np.testing.assert_array_equal(slide.read_all().transpose(1, 2, 0), expected)


@pytest.mark.parametrize("suffix", ["qptiff", "tif"])
def test_a_qptiff_names_its_channels_and_its_pixel_size(tmp_path, suffix):
    names = ["DAPI", "Opal 520 <1>"]
    pixels = np.arange(2 * 64 * 64, dtype=np.uint8).reshape(2, 64, 64)
    with tifffile.TiffWriter(tmp_path / f"a.{suffix}") as tiff:
        for name, plane in zip(names, pixels, strict=True):
            escaped = name.replace("<", "&lt;").replace(">", "&gt;")
            about = (
                '<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription>'
                f"<Name>{escaped}</Name></PerkinElmer-QPI-ImageDescription>"
            )
            tiff.write(
                plane,
                description=about,
                metadata=None,
                software="PerkinElmer-QPI",
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
            )
    with open_slide(tmp_path / f"a.{suffix}", memory_mb=100, view=ImageConfig(channels=["Opal 520 <1>"])) as slide:
        np.testing.assert_array_equal(slide.read_all()[0], pixels[1])
        assert slide.pixel_size_um == pytest.approx((0.5, 0.5))


def test_a_single_dicom_file_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    with (
        pytest.raises(SlideError, match="a DICOM slide has several files; put them into a folder"),
        open_slide(tmp_path / "a.dcm", memory_mb=100),
    ):
        pass


def write_lsm(path, pixels):
    """Write (time, plane, channel, row, column) pixels as an LSM file does: a thumbnail after every plane."""
    times, planes, channels, rows, columns = pixels.shape
    stated = {
        "MagicNumber": 0x0400494C,
        "StructureSize": 500,
        "DimensionX": columns,
        "DimensionY": rows,
        "DimensionZ": planes,
    }
    stated |= {"DimensionChannels": channels, "DimensionTime": times, "DataType": 1, "ScanType": 3 if times > 1 else 0}
    stated |= {"VoxelSizeX": 2e-7, "VoxelSizeY": 3e-7}
    info = b"".join(np.array(stated.get(name, 0), f"<{kind}").tobytes() for name, kind in tifffile.TIFF.CZ_LSMINFO)
    with tifffile.TiffWriter(path, byteorder="<") as tiff:
        for number, (time, plane) in enumerate(np.ndindex(times, planes)):
            tags = [(34412, 1, len(info), info, True)] if number == 0 else []
            layout = {"planarconfig": "separate", "photometric": "rgb"} if channels == 3 else {}
            tiff.write(pixels[time, plane].squeeze(), metadata=None, software=False, extratags=tags, **layout)
            thumbnail = np.zeros((8, 8, 3), np.uint8)
            tiff.write(thumbnail, photometric="rgb", subfiletype=1, metadata=None, software=False)


@pytest.mark.parametrize(
    ("shape", "view", "plane"),
    [((1, 1, 1), {}, (0, 0, 0)), ((1, 3, 3), {"z": 1, "channels": [2]}, (0, 1, 2)), ((4, 1, 1), {"t": 2}, (2, 0, 0))],
)
def test_an_lsm_is_its_planes_and_its_thumbnails_are_no_images(tmp_path, generator, shape, view, plane):
    pixels = generator.integers(0, 255, (*shape, 40, 50), dtype=np.uint8)
    write_lsm(tmp_path / "a.lsm", pixels)
    with open_slide(tmp_path / "a.lsm", memory_mb=100, view=ImageConfig(**view)) as slide:
        np.testing.assert_array_equal(slide.read_all()[0], pixels[plane])
        assert slide.pixel_size_um == pytest.approx((0.3, 0.2))
        assert slide.inspect() == ()


def write_after_the_first(path, pixels, **options):
    """Write a stack whose first plane has a directory, and whose others follow the file."""
    tifffile.imwrite(path, pixels[0], metadata=None, software=False, rowsperstrip=len(pixels[0]), **options)
    content = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", content, 4)
    for entry in range(directory + 2, directory + 2 + 12 * struct.unpack_from("<H", content, directory)[0], 12):
        if struct.unpack_from("<H", content, entry)[0] == 33629:  # of MetaMorph: a rational counts as six numbers
            struct.pack_into("<HI", content, entry + 2, 5, len(pixels))
    path.write_bytes(bytes(content) + pixels[1:].tobytes())


@pytest.mark.parametrize("kind", ["stk", "imagej"])
@pytest.mark.parametrize("side", [40, 2500])
def test_planes_without_directories_are_read_and_never_lost_without_notice(tmp_path, generator, kind, side):
    pixels = generator.integers(0, 255, (4, side, 2000), dtype=np.uint8)
    path = tmp_path / f"a.{'stk' if kind == 'stk' else 'tif'}"
    places = [number for plane in range(4) for number in (plane + 1, 1, 2451545, plane, 2451545, plane)]
    tags = [(33628, 4, 2, (0, 0), True), (33629, 4, len(places), struct.pack(f"<{len(places)}I", *places), True)]
    about = {"extratags": tags} if kind == "stk" else {"description": "ImageJ=1.53t\nimages=4\nslices=4\n"}
    write_after_the_first(path, pixels, byteorder="<", **about)
    with open_slide(path, memory_mb=100, view=ImageConfig(z=3)) as slide:
        np.testing.assert_array_equal(slide.read_all()[0], pixels[3])
    path.write_bytes(path.read_bytes()[:-1000])
    for z in (3, "max"):
        with (
            pytest.raises(SlideError, match="states 4 planes, and 1 are there; copy it again|cannot be read: "),
            open_slide(path, memory_mb=100, view=ImageConfig(z=z)) as slide,
        ):
            slide.read_all()
