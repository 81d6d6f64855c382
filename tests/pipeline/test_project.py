"""Samples, batches and pairs follow from names alone."""

from pathlib import PurePosixPath

import pytest

from pipeline.errors import SlidemillError
from pipeline.project import batch_of, find_images, find_pairs, parts_of, sample_id


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("path", "sample"),
    [
        ("a.tif", "a"),
        ("plate1/A01_f3.ome.tiff", "plate1/A01_f3"),
        ("a.b.PNG", "a.b"),
        ("scan.SVS", "scan"),
        ("x.ome.zarr", "x"),
        ("set.companion.ome", "set"),
        ("a.txt", None),
        ("a", None),
        ("plate/.tif", None),
    ],
)
def test_a_sample_id_is_the_path_without_suffix(path, sample):
    assert sample_id(PurePosixPath(path)) == sample


def test_images_are_found_in_folders_and_hidden_ones_passed_over(tmp_path):
    touch(
        tmp_path,
        "b.tif",
        "plate/x.png",
        "plate/deep/y.tif",
        ".hidden.tif",
        ".partial/z.tif",
        "notes.txt",
        "-x y;'ü.tif",
    )
    assert list(find_images(tmp_path)) == ["-x y;'ü", "b", "plate/deep/y", "plate/x"]
    assert find_images(tmp_path / "missing") == {}


def test_two_files_of_one_sample_are_refused(tmp_path):
    touch(tmp_path, "a.tif", "a.png")
    with pytest.raises(SlidemillError, match="would be the same sample 'a'; rename one of them"):
        find_images(tmp_path)


@pytest.mark.parametrize("name", ["a{b}.tif", "a\nb.tif", "a\\b.tif"])
def test_names_that_no_result_can_have_are_refused(tmp_path, name):
    touch(tmp_path, name)
    with pytest.raises(SlidemillError, match="rename it"):
        find_images(tmp_path)


def test_a_zarr_folder_is_one_slide(tmp_path):
    touch(tmp_path, "a.zarr/.zattrs", "a.zarr/0/.zarray", "a.zarr/labels/x.tif", "plate/b.ome.zarr/zarr.json")
    assert find_images(tmp_path) == {"a": tmp_path / "a.zarr", "plate/b": tmp_path / "plate/b.ome.zarr"}


def test_the_fields_of_a_plate_are_samples_of_one_batch(data):
    plate = data / "formats/ome_zarr/single-plane-hcs.zarr"
    found = find_images(plate.parent)
    assert found["single-plane-hcs/E07_f0"] == plate / "E/07/0"
    assert found["single-plane-hcs/E08_f0"] == plate / "E/08/0"
    assert {batch_of(sample) for sample in found if "hcs" in sample} == {"single-plane-hcs"}


@pytest.mark.parametrize(
    "attributes",
    [
        "not json",
        "[]",
        '{"plate": {"wells": 3}}',
        '{"plate": {"wells": [{"path": "A/1"}]}}',
        '{"plate": {"wells": [{"path": "../../"}]}}',
    ],
)
def test_a_plate_that_is_damaged_is_one_slide_whose_job_says_so(tmp_path, attributes):
    touch(tmp_path, "p.zarr/.zattrs")
    (tmp_path / "p.zarr" / ".zattrs").write_text(attributes)
    assert find_images(tmp_path) == {"p": tmp_path / "p.zarr"}


def test_the_files_of_a_set_are_one_slide(tmp_path):
    touch(tmp_path, "z1.ome.tif", "sub/../z2.ome.tif", "alone.tif", "m.mrxs", "m/Data.dat", "m/preview.jpg", "v-1.jpg")
    (tmp_path / "set.companion.ome").write_text('<UUID FileName="z1.ome.tif"/><UUID FileName="z2.ome.tif"/>')
    (tmp_path / "v.vms").write_text("[Virtual Microscope Specimen]\nImageFile=v-1.jpg\n")
    assert list(find_images(tmp_path)) == ["alone", "m", "set", "v"]
    assert parts_of(tmp_path / "set.companion.ome") == [tmp_path / "z1.ome.tif", tmp_path / "z2.ome.tif"]


def test_a_slide_alone_is_a_batch_and_a_folder_is_one():
    assert [batch_of(sample) for sample in ("a", "plate/a", "plate/deep/a")] == ["a", "plate", "plate/deep"]


def test_pairs_share_their_relative_name(tmp_path):
    touch(tmp_path, "images/field/a.tif", "images/b.png", "labels/field/a.png", "labels/b.tif", "labels/unused.tif")
    assert [pair.name for pair in find_pairs(tmp_path / "images", tmp_path / "labels")] == ["b", "field/a"]


def test_an_image_without_labels_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(SlidemillError, match="no training images in .*images .suffixes"):
        find_pairs(tmp_path / "images", tmp_path / "labels")
    touch(tmp_path, "images/a.tif")
    with pytest.raises(SlidemillError, match=r"a.tif: no label image a.tif or .png in .*labels"):
        find_pairs(tmp_path / "images", tmp_path / "labels")
