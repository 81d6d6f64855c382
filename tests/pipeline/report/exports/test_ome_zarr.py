"""A mask as OME-Zarr has the same labels at every level and the metadata of the specification."""

import numpy as np
import pytest
import tifffile
import zarr

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.base.palette import class_rgb
from pipeline.masks.ome_tiff import write_label_images
from pipeline.masks.ome_zarr import write_label_zarr
from pipeline.report.exports.ome_zarr import write_mask
from pipeline.slides.slide import open_slide

ABOUT = {"sample": "007", "classes": "background, a nucleus", "stage": "stitch", "config": {"x": 1}, "sha256": {}}


def make_mask(path, generator, *, shape=(1100, 1300), objects=True, pixel_size_um=(0.5, 0.25), annotations=ABOUT):
    images = {"classes": generator.integers(0, 2, shape).astype(np.uint8)}
    if objects:
        images["instances"] = generator.integers(0, 2**32, shape, dtype=np.uint32)
    write_label_images(path, images, pixel_size_um=pixel_size_um, annotations=annotations)
    return images


def export(mask, output):
    write_mask(output, mask, memory_mb=100)


@pytest.mark.parametrize("shape", [(1, 1), (37, 513), (1100, 1300)])
def test_every_level_of_both_images_is_that_of_the_mask(tmp_path, generator, shape):
    images = make_mask(tmp_path / "a.ome.tiff", generator, shape=shape)
    export(tmp_path / "a.ome.tiff", tmp_path / "a.ome.zarr")
    for place, name in ((tmp_path / "a.ome.zarr", "classes"), (tmp_path / "a.ome.zarr/labels/instances", "instances")):
        with open_slide(place, memory_mb=100) as slide:
            assert slide.pixel_size_um == (0.5, 0.25)
            with tifffile.TiffFile(tmp_path / "a.ome.tiff") as tiff:
                assert len(slide.levels) == len(tiff.series[0].levels)
            for index in range(len(slide.levels)):
                np.testing.assert_array_equal(slide.read_all(index)[0], images[name][:: 2**index, :: 2**index])
            assert slide.levels[0].dtype == images[name].dtype
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".tiff"] == ["a.ome.zarr"]


def test_metadata_are_those_of_labels_of_version_0_5(tmp_path, generator):
    make_mask(tmp_path / "a.ome.tiff", generator)
    export(tmp_path / "a.ome.tiff", tmp_path / "a.ome.zarr")
    root = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert root.metadata.zarr_format == 3
    ome = root.attrs["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    assert multiscale["axes"] == [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scales = [level["coordinateTransformations"] for level in multiscale["datasets"]]
    assert scales[:2] == [[{"type": "scale", "scale": [0.5, 0.25]}], [{"type": "scale", "scale": [1.0, 0.5]}]]
    assert [level["path"] for level in multiscale["datasets"]] == ["0", "1", "2"]
    assert root["0"].metadata.dimension_names == ("y", "x")
    label = ome["image-label"]
    assert label["colors"] == [
        {"label-value": 0, "rgba": [0, 0, 0, 0]},
        {"label-value": 1, "rgba": [*class_rgb(1), 255]},
    ]
    assert label["properties"] == [
        {"label-value": 0, "class": "background"},
        {"label-value": 1, "class": "a nucleus"},
    ]
    assert root["labels"].attrs["ome"]["labels"] == ["instances"]
    assert root["labels/instances"].attrs["ome"]["image-label"]["source"] == {"image": "../../"}
    assert root.attrs["slidemill"] == ABOUT


def test_a_mask_without_objects_or_pixel_size_is_written_without(tmp_path, generator):
    make_mask(tmp_path / "a.ome.tiff", generator, shape=(40, 50), objects=False, pixel_size_um=None)
    export(tmp_path / "a.ome.tiff", tmp_path / "a.ome.zarr")
    assert not (tmp_path / "a.ome.zarr" / "labels").exists()
    content = read_json(tmp_path / "a.ome.zarr" / "zarr.json")["attributes"]["ome"]["multiscales"][0]
    assert content["axes"] == [{"name": name, "type": "space"} for name in "yx"]
    with open_slide(tmp_path / "a.ome.zarr", memory_mb=100) as slide:
        assert slide.pixel_size_um is None


class Counted:
    """An image of zeros that remembers the size of the largest piece that was read."""

    def __init__(self, shape):
        self.shape, self.dtype, self.largest = shape, np.dtype(np.uint8), 0

    def __getitem__(self, key):
        piece = np.zeros([side.stop - side.start for side in key], np.uint8)
        self.largest = max(self.largest, piece.size)
        return piece


def test_at_most_a_chunk_is_in_memory(tmp_path):
    levels = [Counted((30_000, 5_000)), Counted((15_000, 2_500))]
    write_label_zarr(tmp_path / "x", levels, None, class_names=["a", "b"], pixel_size_um=None, annotations={})
    assert max(level.largest for level in levels) == 1024**2


@pytest.mark.parametrize(("damage", "reason"), [("no mask", ""), ("cut", ""), ("not ours", "has no 'classes'")])
def test_a_damaged_mask_is_an_error_and_nothing_is_written(tmp_path, generator, damage, reason):
    mask = tmp_path / "a.ome.tiff"
    if damage == "no mask":
        tifffile.imwrite(mask, np.zeros((9, 9), np.uint8))
    elif damage == "cut":
        make_mask(mask, generator)
        mask.write_bytes(mask.read_bytes()[:200_000])
    else:
        make_mask(mask, generator, shape=(40, 50), annotations={"sample": "a"})
    with pytest.raises(SlidemillError, match=f"{mask}: .*{reason}"):
        export(mask, tmp_path / "a.ome.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ome.tiff"]
