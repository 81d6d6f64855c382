"""Nothing out of the folder of a slide is read, no pipe is waited for, no tile decodes to more than the budget."""

import json
import os

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats.compression.chunk_size import decoded_bytes
from pipeline.slides.slide import open_slide

PIXELS = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
OWN, OTHER = "urn:uuid:11111111-1111-1111-1111-111111111111", "urn:uuid:22222222-2222-2222-2222-222222222222"
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{own}">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="2" '
    'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
    '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">{own}</UUID></TiffData>'
    '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName=\'{name}\'>{other}</UUID></TiffData>'
    "</Pixels></Image></OME>"
)


def read(path, memory_mb=500, **view):
    with open_slide(path, memory_mb=memory_mb, view=ImageConfig(**view)) as slide:
        return slide.read_all()


@pytest.fixture
def folder(tmp_path):
    """A drop folder with a set of two files, and a file outside of it."""
    folder = tmp_path / "slides"
    folder.mkdir()
    tifffile.imwrite(tmp_path / "secret.ome.tif", PIXELS, description=OME, metadata=None)
    tifffile.imwrite(folder / "b.ome.tif", PIXELS, metadata=None)
    (folder / "link.ome.tif").symlink_to("../secret.ome.tif")
    (folder / "near.ome.tif").symlink_to("b.ome.tif")
    os.mkfifo(folder / "pipe.ome.tif")
    return folder


def write_set(folder, name):
    tifffile.imwrite(
        folder / "a.ome.tif", PIXELS, description=OME.format(own=OWN, other=OTHER, name=name), metadata=None
    )
    return folder / "a.ome.tif"


@pytest.mark.parametrize("name", ["../secret.ome.tif", "&#46;&#46;/secret.ome.tif", "link.ome.tif", "pipe.ome.tif"])
def test_an_ome_tiff_that_names_a_file_elsewhere_is_refused(folder, name):
    with pytest.raises(SlideError, match=r"a.ome.tif: .* OME-XML names '.*', which is no file in its folder; save"):
        read(write_set(folder, name), channels=[1])


def test_an_absolute_name_is_refused_in_a_companion_too(folder, tmp_path):
    write_set(folder, tmp_path / "secret.ome.tif")
    text = OME.format(own="", other="", name=tmp_path / "secret.ome.tif")
    (folder / "set.companion.ome").write_text(text)
    (folder / "secret.ome.tif").write_bytes((folder / "b.ome.tif").read_bytes())  # of the same name, in the folder
    for path in (folder / "a.ome.tif", folder / "set.companion.ome"):
        with pytest.raises(SlideError, match="which is no file in its folder"):
            read(path, channels=[1])


@pytest.mark.parametrize("name", ["b.ome.tif", "near.ome.tif"])
def test_files_of_the_same_folder_belong_to_a_set(folder, name):
    assert np.array_equal(read(write_set(folder, name), channels=[1])[0], PIXELS)


def test_a_set_behind_links_is_read_where_links_are_followed(folder, tmp_path):
    write_set(folder, "b.ome.tif")
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.ome.tif", "b.ome.tif"):
        (images / name).symlink_to(folder / name)
    assert np.array_equal(read(images / "a.ome.tif", channels=[1])[0], PIXELS)


def write_zarr(folder, version):
    group = zarr.create_group(folder, zarr_format=version)
    array = group.create_array("0", shape=(64, 64), chunks=(32, 32), dtype="u1", compressors=None, fill_value=0)
    array[:] = PIXELS
    axes = [{"name": "y"}, {"name": "x"}]
    about = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": []}], "version": "0.4"}]
    group.attrs.update({"multiscales": about} if version == 2 else {"ome": {"multiscales": about}})
    return next(path for path in (folder / "0").rglob("*") if path.is_file() and path.name in ("1", "1.1"))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", ["a link", "a pipe", "a link to a folder"])
def test_chunks_of_an_ome_zarr_are_files_in_its_folder(tmp_path, version, kind):
    folder = tmp_path / "slides" / "a.zarr"
    chunk = write_zarr(folder, version)
    assert np.array_equal(read(folder)[0], PIXELS)
    if kind == "a pipe":
        chunk.unlink()
        os.mkfifo(chunk)
    else:
        moved = chunk if kind == "a link" else folder / "0"
        moved.rename(tmp_path / "elsewhere")
        moved.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SlideError, match="not a regular file|leads out of|outside the folder"):
        read(folder)


def test_the_images_of_a_folder_are_in_it(tmp_path):
    write_zarr(tmp_path / "elsewhere", 2)
    folder = tmp_path / "slides" / "a.zarr"
    folder.mkdir(parents=True)
    (folder / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SlideError, match="a link that leads out of"):
        read(folder)


def test_a_codec_that_runs_code_is_refused_however_it_is_spelt(tmp_path):
    write_zarr(tmp_path / "a.zarr", 2)
    array = tmp_path / "a.zarr/0/.zarray"
    about = json.loads(array.read_text()) | {"filters": [{"id": "PICKLE"}]}
    array.write_text(json.dumps(about).replace("PICKLE", "\\u0070ickle"))
    with pytest.raises(SlideError, match="its chunks are pickled"):
        read(tmp_path / "a.zarr")


def test_the_files_of_a_slide_scanner_are_in_their_folder(tmp_path):
    (tmp_path / "slides/m").mkdir(parents=True)
    (tmp_path / "slides/m.mrxs").write_bytes(b"")
    os.mkfifo(tmp_path / "slides/m/Slidedat.ini")
    with pytest.raises(SlideError, match="not a regular file"):
        read(tmp_path / "slides/m.mrxs")


@pytest.mark.parametrize(
    "encode", [imagecodecs.jpeg_encode, lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k")]
)
def test_a_picture_that_is_larger_than_its_tile_is_not_decoded(tmp_path, encode):
    compression = "jpeg" if encode is imagecodecs.jpeg_encode else "jpeg2000"
    tile = encode(np.zeros((2000, 2000, 3), np.uint8))
    shape = (64, 64, 3)
    tifffile.imwrite(
        tmp_path / "a.tif",
        iter([tile]),
        shape=shape,
        dtype=np.uint8,
        tile=(64, 64),
        compression=compression,
        photometric="rgb",
    )
    with pytest.raises(SlideError, match="the picture in a tile decodes to 16 MB, the limit is 10 MB"):
        read(tmp_path / "a.tif", memory_mb=10, channels=[0, 1, 2])


BOMB_BYTES = 120_000_000
CODECS = {
    "zlib": numcodecs.Zlib(9),
    "gzip": numcodecs.GZip(9),
    "bz2": numcodecs.BZ2(),
    "lzma": numcodecs.LZMA(preset=0),
    "zstd": numcodecs.Zstd(3),
    "lz4": numcodecs.LZ4(),
    "blosc": numcodecs.Blosc("zstd"),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_chunk_that_is_larger_than_the_budget_is_not_decoded(tmp_path, name):
    codec, folder = CODECS[name], tmp_path / "a.zarr"
    group = zarr.create_group(folder, zarr_format=2)
    array = group.create_array("0", shape=(64, 64), chunks=(64, 64), dtype="u1", compressors=codec, fill_value=0)
    array[:] = PIXELS
    about = {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}], "version": "0.4"}
    group.attrs["multiscales"] = [about]
    assert np.array_equal(read(folder)[0], PIXELS)
    (folder / "0" / "0.0").write_bytes(codec.encode(bytes(BOMB_BYTES)))
    with pytest.raises(SlideError, match="a chunk decodes to 1.. MB, the limit is 100 MB"):
        read(folder, memory_mb=100)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 70_000])
def test_the_size_of_a_chunk_is_known_before_it_is_decoded(name, size):
    encoded = bytes(CODECS[name].encode(bytes(size)))
    assert decoded_bytes(name, encoded, 10) in {size, 0 if size <= 10 else size}
    assert decoded_bytes(name, encoded[:3], 10) == 0
    if name in ("gzip", "bz2", "lzma") and size:  # their decoders go on with what follows
        assert decoded_bytes(name, encoded * 2, 2 * size) in {2 * size, 0 if len(encoded) * 2064 <= 2 * size else -1}
