"""A mask opens in tifffile with its levels, pixel size, names and provenance, and every level holds picked labels."""

import json

import numpy as np
import pytest
import tifffile

from pipeline.ome import write_label_images
from pipeline.slides import open_slide


@pytest.mark.parametrize("shape", [(1, 1), (37, 513), (1100, 1300)])
def test_every_level_holds_every_second_pixel_of_the_one_above(tmp_path, generator, shape):
    images = {
        "classes": generator.integers(0, 3, shape).astype(np.uint8),
        "instances": generator.integers(0, 2**32, shape, dtype=np.uint32),
    }
    write_label_images(
        tmp_path / "x.ome.tiff", images, pixel_size_um=(0.5, 0.25), annotations={"sample": "a <b>", "n": {"c": 1}}
    )
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
        assert slide.pixel_size_um == (0.5, 0.25)


def test_without_a_pixel_size_none_is_claimed(tmp_path):
    write_label_images(
        tmp_path / "x.ome.tiff", {"classes": np.zeros((9, 9), np.uint8)}, pixel_size_um=None, annotations={}
    )
    with open_slide(tmp_path / "x.ome.tiff", memory_mb=100) as slide:
        assert slide.pixel_size_um is None
