"""A mask opens in tifffile with its levels, pixel size, names and provenance; every level holds picked labels."""

import json
import re
import uuid

import dask
import numpy as np
import pytest
import tifffile

from pipeline.base.arrays import LazyArray
from pipeline.masks.ome_tiff import write_label_images
from pipeline.slides.slide import open_slide


@pytest.mark.parametrize(
    ("shape", "pixel_size_um"), [((1, 1), None), ((37, 513), (0.5, 0.25)), ((1100, 1300), (0.5, 0.25))]
)
def test_every_level_holds_every_second_pixel_of_the_one_above(tmp_path, generator, shape, pixel_size_um):
    images = {
        "classes": generator.integers(0, 3, shape).astype(np.uint8),
        "instances": generator.integers(0, 2**32, shape, dtype=np.uint32),
    }
    about = {"sample": "a <b>", "n": {"c": 1}}
    write_label_images(tmp_path / "x.ome.tiff", images, pixel_size_um=pixel_size_um, annotations=about)
    with tifffile.TiffFile(tmp_path / "x.ome.tiff") as tiff:
        assert [series.name for series in tiff.series] == ["classes", "instances"]
        for series, image in zip(tiff.series, images.values(), strict=True):
            assert len(series.levels) >= (2 if max(shape) > 1 else 1)
            assert max(series.levels[-1].shape) <= 512
            for index, level in enumerate(series.levels):
                assert level.keyframe.is_tiled
                np.testing.assert_array_equal(level.asarray(), image[:: 2**index, :: 2**index])
        pairs = tifffile.xml2dict(tiff.ome_metadata)["OME"]["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    found = {pair["K"]: pair["value"] for pair in pairs}
    assert (found["sample"], json.loads(found["n"])) == ("a <b>", {"c": 1})
    with open_slide(tmp_path / "x.ome.tiff", memory_mb=100) as slide:
        assert slide.pixel_size_um == pixel_size_um


def test_every_pixel_is_read_once(tmp_path, generator):
    pixels = generator.integers(0, 9, (1100, 9000)).astype(np.uint8)
    reads = np.zeros(pixels.shape, int)

    def read(*key):
        reads[key] += 1
        return pixels[key]

    image = LazyArray(pixels.shape, pixels.dtype, read)
    write_label_images(tmp_path / "x.ome.tiff", {"classes": image}, pixel_size_um=None, annotations={})
    assert (reads == 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["x.ome.tiff"]


@pytest.mark.parametrize(
    ("rows", "columns", "tile"),
    [(1, 1, (16, 16)), (256, 512, (256, 512)), (30, 500, (32, 512)), (513, 9, (512, 512)), (520, 8200, (512, 512))],
)
def test_any_number_of_threads_gives_the_bytes_that_tifffile_writes(tmp_path, generator, rows, columns, tile):
    """tifffile cuts, pads and compresses the tiles of an array itself."""
    image = generator.integers(0, 9, (rows, columns), dtype=np.uint32)
    written = []
    for threads in (1, 2, 4):
        with dask.config.set(num_workers=threads):
            path = tmp_path / f"{threads}.ome.tiff"
            write_label_images(path, {"instances": image}, pixel_size_um=None, annotations={})
            written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]
    tifffile.imwrite(tmp_path / "plain.tif", image, tile=tile, compression="zlib")
    with tifffile.TiffFile(tmp_path / "plain.tif") as plain, tifffile.TiffFile(tmp_path / "1.ome.tiff") as ours:
        assert [*segments(ours)] == [*segments(plain)]


def segments(tiff):
    """The compressed tiles of the first image."""
    page = tiff.pages[0]
    return (data for data, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts))


def test_equal_input_gives_equal_bytes_and_other_annotations_another_uuid(tmp_path, generator):
    images = {"classes": generator.integers(0, 9, (600, 700)).astype(np.uint8)}
    written = []
    for name, sample in (("x", "a"), ("y", "a"), ("z", "b")):
        path = tmp_path / f"{name}.ome.tiff"
        write_label_images(path, images, pixel_size_um=(0.5, 0.25), annotations={"sample": sample})
        written.append(path.read_bytes())
    assert written[0] == written[1]
    uuids = [re.search(rb'UUID="urn:uuid:([-0-9a-f]+)"', content)[1].decode() for content in written]
    assert [uuid.UUID(text).version for text in uuids] == [5, 5, 5]
    assert uuids[0] != uuids[2]
