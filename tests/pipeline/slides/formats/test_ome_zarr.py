"""OME-Zarr is read by its metadata: versions, plates, units; nothing out of its folder, and no code in it."""

import re

import numpy as np
import pytest
import zarr

from pipeline.base.errors import SlideError
from tests.support.opened_slides import opened, pixels_of


@pytest.mark.parametrize("well", ["07", "08"])
def test_a_field_of_a_plate_is_its_arrays(data, well):
    field = data / "formats/ome_zarr/single-plane-hcs.zarr/E" / well / "0"
    with opened(field, channels=["Best-Focus-Projection_FITC_05", 2]) as slide:
        for number in range(3):
            stored = zarr.open_array(field / str(number), mode="r")[:]
            np.testing.assert_array_equal(slide.read_all(number), stored[[1, 2]])
        assert slide.pixel_size_um == pytest.approx((2.7336, 2.7336))  # of this pyramid; the microscope's was half


def test_the_versions_of_ome_zarr_read_alike(data):
    blobs = data / "formats/synthetic/ome_zarr_blobs"
    for version in (4, 5):
        path = blobs / f"blobs_image_v0{version}.ome.zarr"
        np.testing.assert_array_equal(pixels_of(path), zarr.open_array(path / "0", mode="r")[:])
        with opened(path) as slide:
            assert (slide.pixel_size_um, slide.channel_names) == (None, ("0", "1", "2"))


@pytest.mark.parametrize(
    ("unit", "scale", "size", "warning"),
    [
        ("micrometer", [0.5, 0.25], (0.5, 0.25), None),
        ("nanometer", [500, 250], (0.5, 0.25), None),
        (None, [1, 1], None, None),
        (None, [0.5, 0.25], None, "0.5 without unit x 0.25 without unit"),
        ("furlong", [1, 1], None, "1 furlong x 1 furlong"),
        ("micrometer", [0, 0.5], None, "0 micrometer x 0.5 micrometer"),
        ("micrometer", None, None, None),
    ],
)
def test_the_scales_of_an_ome_zarr_are_its_pixel_size_or_a_warning(tmp_path, unit, scale, size, warning):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=2)
    group.create_array("0", data=np.zeros((8, 8), np.uint8) + 1)
    steps = [{"type": "scale", "scale": scale}] if scale else []
    axes = [{"name": name} | ({"unit": unit} if unit else {}) for name in "yx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    with opened(tmp_path / "x.zarr") as slide:
        assert slide.pixel_size_um == size
        assert slide.inspect() == ((f"it states a pixel size that is ignored: {warning}",) if warning else ())


def test_a_zarr_that_runs_code_or_leaves_its_folder_is_refused(tmp_path):
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=2)
    group.create_array("0", data=np.zeros((8, 8), np.uint8))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    assert pixels_of(tmp_path / "x.zarr").shape == (1, 8, 8)
    array = tmp_path / "x.zarr" / "0" / ".zarray"
    array.write_text(re.sub(r'"filters": (null|\[[^]]*\])', '"filters": [{"id": "pickle"}]', array.read_text()))
    with pytest.raises(SlideError, match="pickled, which can run code"):
        pixels_of(tmp_path / "x.zarr")
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "../../etc"}]}]
    with pytest.raises(SlideError, match="outside the folder"):
        pixels_of(tmp_path / "x.zarr")
