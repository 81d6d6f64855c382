"""OME-Zarr plates and stacks are segmented like any slide, at the pixel size that was chosen."""

import numpy as np
import pytest
import tifffile
import zarr

AT_ONE_UM = (35, 45)


def write_zarr(folder, pixels, pixel_size_um):
    group = zarr.create_group(folder, zarr_format=2)
    group.create_array("0", data=pixels, chunks=(1, 32, 32))
    space = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, {"name": "y"} | space, {"name": "x"} | space]
    scale = [{"type": "scale", "scale": [1.0, pixel_size_um, pixel_size_um]}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs["omero"] = {"channels": [{"label": "membrane"}, {"label": "DAPI"}]}


def write_plate(folder, pixels):
    plate = zarr.create_group(folder, zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    for well in ("A/1", "B/2"):
        plate.create_group(well).attrs["well"] = {"images": [{"path": "0"}]}
        write_zarr(folder / well / "0", pixels, 0.5)


@pytest.fixture(scope="module")
def segmented(project, micrograph):
    """A plate and a stack of 70 x 90 px of half a µm, segmented at 1 µm."""
    slides = project.folder / "data" / "slides"
    slides.mkdir(parents=True)
    write_plate(slides / "plate.zarr", np.stack([np.zeros_like(micrograph), micrograph]))
    stack = np.stack([np.zeros_like(micrograph), micrograph, micrograph // 2])[:, None].repeat(2, axis=1)
    named = {"axes": "ZCYX", "Channel": {"Name": ["membrane", "DAPI"]}}
    tifffile.imwrite(slides / "stack.ome.tif", stack, metadata=named)
    project.drop("references/stack.tif", (micrograph > 99).astype(np.uint8))
    (project.folder / "config").mkdir(exist_ok=True)
    (project.folder / "config" / "samples.csv").write_text("sample,pixel_size_um\nstack,0.5\n")
    project.configure(image={"channels": ["DAPI"], "z": "max", "pixel_size_um": 1.0})
    project.run()
    return project


def test_every_field_and_stack_has_a_mask_on_the_chosen_grid(segmented):
    assert sorted(segmented.masks()) == ["plate/A1_f0.ome.tiff", "plate/B2_f0.ome.tiff", "stack.ome.tiff"]
    for name in segmented.masks():
        with tifffile.TiffFile(segmented.folder / "results" / "masks" / "net" / name) as mask:
            assert mask.series[0].shape == AT_ONE_UM
            assert 'PhysicalSizeX="1.0"' in mask.ome_metadata


def test_the_same_pixels_in_two_formats_give_the_same_mask(segmented):
    folder = segmented.folder / "results" / "masks" / "net"
    masks = [tifffile.imread(folder / name) for name in segmented.masks()]
    assert masks[0].any()
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_a_plate_is_one_batch(segmented):
    ledgers = (segmented.folder / "results" / "ledgers" / "predict" / "net" / "plate").glob("*.json")
    assert [path.name for path in ledgers] == ["0001.json"]


def test_a_reference_of_the_shape_of_the_file_is_compared(segmented):
    assert segmented.metrics().loc["stack", "pixels"] == AT_ONE_UM[0] * AT_ONE_UM[1]


def test_a_second_run_has_nothing_to_do(segmented):
    assert segmented.planned() == {}


def test_a_written_level_renews_its_field_alone(segmented, micrograph):
    """Writing a zarr image changes its metadata files, whose times stand for those of the folder."""
    before = segmented.masks()
    write = zarr.open_group(segmented.folder / "data/slides/plate.zarr/A/1/0", mode="a")
    write.create_array("0", data=np.stack([micrograph, micrograph[::-1]]), chunks=(1, 32, 32), overwrite=True)
    segmented.run()
    changed = {name for name, written in segmented.masks().items() if written != before[name]}
    assert changed == {"plate/A1_f0.ome.tiff"}
