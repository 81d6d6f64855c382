"""Tiles, strips and chunks that are not there are counted or refused; damaged ones are an error."""

import json
import sys

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats.compression.damage import count_damaged
from pipeline.slides.slide import open_slide

MEMORY_MB = 500
NINES = np.full((64, 64), 9, np.uint8)


def sparse_tiff(path, lost, *, offset=0, pixels=NINES, **options):
    """Write 16 tiles, and say of the first ``lost`` that they have 0 bytes at ``offset``."""
    tifffile.imwrite(path, pixels, tile=(16, 16), compression="zlib", **options)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        starts, counts = list(page.dataoffsets), list(page.databytecounts)
        page.tags["TileOffsets"].overwrite([offset] * lost + starts[lost:])
        page.tags["TileByteCounts"].overwrite([0] * lost + counts[lost:])


def test_tiles_that_are_not_stored_are_counted(tmp_path):
    sparse_tiff(tmp_path / "x.tif", 4)
    with open_slide(tmp_path / "x.tif", memory_mb=MEMORY_MB) as slide:
        assert (slide.read_all() == 0).mean() == 0.25
        assert slide.inspect() == ("4 of its 16 tiles or chunks (25%) are absent, read as empty",)
    colours = np.full((64, 64, 3), 9, np.uint8)
    sparse_tiff(tmp_path / "rgb.tif", 4, pixels=colours, photometric="rgb")
    with open_slide(tmp_path / "rgb.tif", memory_mb=MEMORY_MB, view=ImageConfig(channels=[0, 2])) as slide:
        assert slide.inspect() == ("4 of its 16 tiles or chunks (25%) are absent, read as empty",)
    sparse_tiff(tmp_path / "y.tif", 16)
    with open_slide(tmp_path / "y.tif", memory_mb=MEMORY_MB) as slide, pytest.raises(SlideError, match="all of its 16"):
        slide.inspect()
    sparse_tiff(tmp_path / "z.tif", 2, offset=8)
    with (
        pytest.raises(SlideError, match="2 of its 16 strips or tiles have no data"),
        open_slide(tmp_path / "z.tif", memory_mb=MEMORY_MB),
    ):
        pass


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp"])
@pytest.mark.parametrize("options", [{"tile": (64, 64)}, {"rowsperstrip": 64}])
def test_tiles_whose_data_are_cut_off_are_an_error(tmp_path, generator, compression, options):
    """Their decoders return pixels all the same."""
    pixels = generator.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", compression=compression, **options)
    with open_slide(path, memory_mb=MEMORY_MB) as slide:
        assert slide.inspect() == ()
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        start, count = page.dataoffsets[1], page.databytecounts[1]
        counts = list(page.databytecounts)
        if compression == "webp":  # nothing in its data says where they end
            counts[1] //= 2
            page.tags["TileByteCounts" if "tile" in options else "StripByteCounts"].overwrite(counts)
    if compression != "webp":
        with path.open("r+b") as file:
            file.seek(start + count // 2)
            file.write(bytes(count - count // 2))
    with (
        open_slide(path, memory_mb=MEMORY_MB) as slide,
        pytest.raises(SlideError, match=f"1 of its {len(counts)} tiles or strips are damaged"),
    ):
        slide.inspect()


def test_several_threads_look_for_damage_in_one_file(tmp_path, generator, monkeypatch):
    """They share its place, which each reading moves: without a lock, one whole file in five was refused."""
    monkeypatch.setattr(tifffile.TIFF, "MAXWORKERS", 4)
    pixels = generator.integers(0, 255, (512, 512, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="rgb", compression="jpeg", tile=(64, 64))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            with tifffile.TiffFile(tmp_path / "x.tif") as tiff:
                assert count_damaged(tiff.pages[0]) == 0
    finally:
        sys.setswitchinterval(interval)


def test_damage_in_another_file_of_a_set(tmp_path, generator):
    """tifffile closes the files of a set but the first."""
    names, ids = ("a.ome.tif", "b.ome.tif"), [f"urn:uuid:0000000{n}-0000-4000-8000-000000000000" for n in range(2)]
    planes = "".join(
        f'<TiffData FirstC="{n}" IFD="0" PlaneCount="1"><UUID FileName="{names[n]}">{ids[n]}</UUID></TiffData>'
        for n in range(2)
    )
    for number, name in enumerate(names):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[number]}"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="2" SizeZ="1" '
            f'SizeT="1">{planes}</Pixels></Image></OME>'
        )
        pixels = generator.integers(0, 255, (64, 64)).astype(np.uint8)
        options = {"tile": (32, 32), "compression": "jpeg", "metadata": None}
        tifffile.imwrite(tmp_path / name, pixels, description=xml, **options)
    view = ImageConfig(channels=[1])
    with open_slide(tmp_path / "a.ome.tif", memory_mb=MEMORY_MB, view=view) as slide:
        assert slide.inspect() == ()
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tiff:
        start, count = tiff.pages[0].dataoffsets[2], tiff.pages[0].databytecounts[2]
    with (tmp_path / "b.ome.tif").open("r+b") as file:
        file.seek(start + count // 2)
        file.write(bytes(count - count // 2))
    with (
        open_slide(tmp_path / "a.ome.tif", memory_mb=MEMORY_MB, view=view) as slide,
        pytest.raises(SlideError, match="1 of its 4 tiles or strips are damaged"),
    ):
        slide.inspect()


def damage(content, generator, start, stop):
    """Zero 8 bytes, or set them to 0xFF, somewhere between two places."""
    at = int(generator.integers(start, stop - 8))
    content[at : at + 8] = bytes(8) if generator.integers(2) else b"\xff" * 8


def test_damage_in_jpeg_is_an_error(data, tmp_path, generator):
    """In a tile of a scanner's slide, in a strip with and without common tables, and in a picture."""
    pixels = generator.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "strips.tif", pixels, photometric="rgb", compression="jpeg", rowsperstrip=64)
    PIL.Image.fromarray(pixels).save(tmp_path / "picture.jpg")
    PIL.Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.jpg")
    PIL.Image.fromarray(pixels).save(tmp_path / "pillow.tif", compression="jpeg")
    for path in [data / "wsi" / "CMU-1-Small-Region.svs", *tmp_path.iterdir()]:
        with open_slide(path, memory_mb=MEMORY_MB) as slide:
            assert slide.inspect() == ()
        start, count = 0, path.stat().st_size
        if path.suffix != ".jpg":
            with tifffile.TiffFile(path) as tiff:
                start, count = tiff.pages[0].dataoffsets[-1], tiff.pages[0].databytecounts[-1]
        for number in range(5):
            content = bytearray(path.read_bytes())
            damage(content, generator, start + count // 2, start + count - 2)
            copy = tmp_path / f"{number}{path.suffix}"
            copy.write_bytes(content)
            with (
                pytest.raises(SlideError, match="damaged; copy|broken data stream"),
                open_slide(copy, memory_mb=MEMORY_MB) as slide,
            ):
                slide.inspect()


def test_lost_tiles_of_an_svs_are_an_error(data, tmp_path):
    path = tmp_path / "x.svs"
    path.write_bytes((data / "wsi" / "CMU-1-Small-Region.svs").read_bytes())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        counts = list(page.databytecounts)
        page.tags["TileByteCounts"].overwrite([0, 0, *counts[2:]])
    with (
        open_slide(path, memory_mb=MEMORY_MB) as slide,
        pytest.raises(SlideError, match=rf"2 of {len(counts)} tiles have no data; copy or scan it again"),
    ):
        slide.inspect()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("present", "of_plane"), [(3, 3), (1, 1), (0, 0)])
def test_absent_chunks_of_the_chosen_plane_are_counted(tmp_path, zarr_format, present, of_plane):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=zarr_format)
    array = group.create_array("0", shape=(2, 8, 8), chunks=(1, 4, 4), dtype="u1", fill_value=0)
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    about = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    group.attrs.update(about if zarr_format == 2 else {"ome": about})
    array[0] = 7
    for row, column in [(0, 0), (0, 4), (4, 0)][:present]:
        array[1, row : row + 4, column : column + 4] = 7
    with open_slide(tmp_path / "x.zarr", memory_mb=MEMORY_MB, view=ImageConfig(z=0)) as whole:
        assert whole.inspect() == ()
    with open_slide(tmp_path / "x.zarr", memory_mb=MEMORY_MB, view=ImageConfig(z=1)) as slide:
        if present:
            share = (4 - of_plane) / 4
            assert slide.inspect() == (
                f"{4 - of_plane} of its 4 tiles or chunks ({share:.0%}) are absent, read as empty",
            )
        else:
            with pytest.raises(SlideError, match="all of its 4 tiles or chunks are absent"):
                slide.inspect()


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({"zarr_format": 2}, "0/0.1"),
        ({"zarr_format": 3}, "0/c/0/1"),
        ({"zarr_format": 3, "shards": (32, 32)}, "0/c/0/1"),
    ],
)
def test_the_file_of_a_damaged_chunk_is_named(tmp_path, generator, options, file):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=options["zarr_format"])
    array = group.create_array("0", shape=(64, 64), chunks=(16, 16), dtype="u1", shards=options.get("shards"))
    array[:] = generator.integers(0, 255, (64, 64))
    about = {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]}
    group.attrs.update(about if options["zarr_format"] == 2 else {"ome": about})
    place = tmp_path / "x.zarr" / file
    whole, side = place.read_bytes(), array.shards or array.chunks
    with open_slide(tmp_path / "x.zarr", memory_mb=MEMORY_MB) as slide:
        for damaged in (whole[: len(whole) // 2], b"garbage"):
            place.write_bytes(damaged)
            with pytest.raises(SlideError, match=f"x.zarr: cannot be read: {file}: "):
                slide.read_all()
            others = slide.read(slice(side[0], 64), slice(0, 64))  # its other files can be read
            np.testing.assert_array_equal(others[0], array[side[0] :])


@pytest.mark.parametrize(
    ("zarr_format", "name"), [(2, ".zattrs"), (2, "0/.zarray"), (3, "zarr.json"), (3, "0/zarr.json")]
)
def test_the_damaged_description_of_an_image_is_named(tmp_path, zarr_format, name):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=zarr_format)
    group.create_array("0", shape=(8, 8), chunks=(4, 4), dtype="u1")[:] = 7
    about = {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]}
    group.attrs.update(about if zarr_format == 2 else {"ome": about})
    place = tmp_path / "x.zarr" / name
    place.write_text(place.read_text()[:-10])
    named = f"{place.parent.name}/{place.name}"
    with pytest.raises(SlideError, match=f"{named} is no JSON"), open_slide(tmp_path / "x.zarr", memory_mb=MEMORY_MB):
        pass


def test_absent_chunks_without_a_fill_value_are_an_error(tmp_path):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=2)
    group.create_array("0", shape=(8, 8), chunks=(4, 4), dtype="u1")[:4] = 7
    group.attrs["multiscales"] = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]
    about = tmp_path / "x.zarr" / "0" / ".zarray"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"fill_value": None}))
    with (
        open_slide(tmp_path / "x.zarr", memory_mb=MEMORY_MB) as slide,
        pytest.raises(SlideError, match="2 of 4 chunks are not there, and no fill value says what they are"),
    ):
        slide.inspect()
