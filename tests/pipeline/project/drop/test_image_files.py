"""Samples follow from names; a file that cannot be one is refused with a reason, without effect on others."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.project.drop.image_files import find_images, list_images, parts_of, sample_id
from tests.support.slide_files import WITHOUT_PRIVILEGES, touch


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
    assert sample_id(path) == sample


def test_images_are_found_in_folders_and_hidden_ones_ignored(tmp_path):
    touch(tmp_path, "b.tif", "plate/x.png", "plate/deep/y.tif", "-x y;'ü.tif")
    touch(tmp_path, ".hidden.tif", ".partial/z.tif", "notes.txt")
    assert list(find_images(tmp_path)) == ["-x y;'ü", "b", "plate/deep/y", "plate/x"]
    assert find_images(tmp_path / "missing") == {}


def test_two_files_of_one_sample_are_refused_but_no_others(tmp_path):
    touch(tmp_path, "a.tif", "a.png", "b.tif")
    images, refused = list_images(tmp_path, follow_links=False)
    assert images == {"b": tmp_path / "b.tif"}
    assert "would be the same sample 'a'; rename one of them" in refused["a"].reason
    with pytest.raises(SlidemillError, match="would be the same sample 'a'"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a{b}.tif", "a{b}"),
        ("a\nb.tif", "a\\nb"),
        ("a\\b.tif", "a\\b"),
        ("a\x1b[31m.tif", "a\\x1b[31m"),
        ("a\u2028b.tif", "a\\u2028b"),
        (os.fsdecode(b"\xff.tif"), "\\udcff"),
        ("plate/" + 201 * "x" + ".tif", "plate/" + 201 * "x"),
        (67 * "\u20ac" + ".tif", 67 * "\u20ac"),  # 201 bytes
    ],
)
def test_names_that_no_result_can_have_are_refused_one_by_one(tmp_path, name, shown):
    touch(tmp_path, name, "plate/good.tif")
    images, refused = list_images(tmp_path, follow_links=False)
    assert list(images) == ["plate/good"]
    assert list(refused) == [shown]
    assert "rename it" in refused[shown].reason
    assert str(refused[shown]).encode()  # it can be written
    assert len(refused[shown].reason.splitlines()) == 1
    with pytest.raises(SlidemillError, match="rename it"):
        find_images(tmp_path)


def test_unusual_names_are_allowed(tmp_path):
    names = [
        "-rf",
        "=1+1",
        " blank ",
        "it's",
        'a "b"; $(c) `d`',
        "50%, µm",
        "\u202fnarrow\u00a0",
        "*?[x]",
        "~",
        200 * "x",
    ]
    touch(tmp_path, *(f"{name}.tif" for name in names))
    assert list(find_images(tmp_path)) == sorted(names)


@pytest.fixture
def with_links(tmp_path):
    """A drop folder with links of every kind, and a folder outside of it."""
    folder = tmp_path / "slides"
    touch(folder, "plate/a.tif")
    touch(tmp_path, "outside/secret.tif")
    (folder / "alias.tif").symlink_to("plate/a.tif")
    (folder / "out.tif").symlink_to("../outside/secret.tif")
    (folder / "nothing.tif").symlink_to("gone.tif")
    (folder / "circle.tif").symlink_to("circle.tif")
    (folder / "folder").symlink_to("../outside")
    (folder / "above").symlink_to("..")
    return folder


def test_links_out_of_the_folder_are_refused(with_links):
    images, refused = list_images(with_links, follow_links=False)
    assert list(images) == ["alias", "plate/a"]
    assert {name: reason.split(": ")[1] for name, (_, reason) in refused.items()} == {
        "above/": "a link to a folder; put the folder itself there",
        "circle": "a broken link, or not a regular file; remove it",
        "folder/": "a link to a folder; put the folder itself there",
        "nothing": "a broken link, or not a regular file; remove it",
        "out": "a link to a file outside of the drop folder; put the file itself there",
    }


def test_a_pipe_is_no_slide_and_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    assert "not a regular file" in list_images(tmp_path, follow_links=True)[1]["pipe"].reason


def test_unreadable_files_are_refused_but_no_others(tmp_path):
    """In a process that has no more rights than the mode of a file gives, also where the tests run as root."""
    touch(tmp_path, "good.tif", "locked.tif", "locked/a.tif")
    (tmp_path / "locked.tif").chmod(0)
    (tmp_path / "locked").chmod(0)
    code = (
        "import sys; from pathlib import Path; from pipeline.project.drop.image_files import list_images;"
        "images, refused = list_images(Path(sys.argv[1]), follow_links=False);"
        "print(*images); print(*[reason for _, reason in refused.values()], sep='\\n')"
    )
    done = subprocess.run(
        [*WITHOUT_PRIVILEGES, sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "good",
        f"{tmp_path / 'locked.tif'}: cannot be read: permission denied; allow it (chmod)",
        f"{tmp_path / 'locked'}: the folder cannot be listed: Permission denied; allow it, or remove it",
    ]


def test_a_zarr_folder_is_one_slide(tmp_path):
    touch(tmp_path, "a.zarr/.zattrs", "a.zarr/0/.zarray", "a.zarr/labels/x.tif", "plate/b.ome.zarr/zarr.json")
    assert find_images(tmp_path) == {"a": tmp_path / "a.zarr", "plate/b": tmp_path / "plate/b.ome.zarr"}


def test_the_fields_of_a_plate_are_samples_of_one_batch(data):
    plate = data / "formats/ome_zarr/single-plane-hcs.zarr"
    found = find_images(plate.parent)
    assert found["single-plane-hcs/E07_f0"] == plate / "E/07/0"
    assert found["single-plane-hcs/E08_f0"] == plate / "E/08/0"


@pytest.mark.parametrize("wells", ["no json", 3, [{}], None, "[" * 10**5])
def test_a_damaged_plate_is_one_slide_whose_job_reports_the_error(tmp_path, wells):
    attributes = wells if isinstance(wells, str) else json.dumps({"plate": {"wells": wells}} if wells else [])
    touch(tmp_path, "p.zarr/.zattrs")
    (tmp_path / "p.zarr" / ".zattrs").write_text(attributes)
    assert find_images(tmp_path) == {"p": tmp_path / "p.zarr"}


def test_wells_and_fields_that_a_plate_lists_and_has_not_are_refused_alone(tmp_path):
    """As of a plate that was copied in part."""
    plate = tmp_path / "p.zarr"
    touch(plate, "A/1/0/.zattrs", "A/2/0/.zattrs", "A/3/0/.zattrs")
    wells = {"A/1": {"well": {"images": [{"path": "0"}, {"path": "1"}]}}, "A/2": {"well": 3}, "A/3": None, "B/1": None}
    (plate / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": well} for well in wells]}}))
    for well, attributes in wells.items():
        if attributes:
            (plate / well / ".zattrs").write_text(json.dumps(attributes))
    images, refused = list_images(tmp_path, follow_links=False)
    assert images == {"p/A1_f0": plate / "A/1/0"}
    assert {name: str(path.relative_to(plate)) for name, (path, _) in refused.items()} == {
        "p/A1_f1": "A/1/1",
        "p/A2": "A/2",
        "p/A3": "A/3",
        "p/B1": "B/1",
    }
    assert "p.zarr lists it, but it is not there; copy the plate again" in refused["p/B1"].reason
    assert "list of fields is damaged or not there" in refused["p/A3"].reason


@pytest.mark.parametrize(
    ("well", "field"),
    [
        ("A/1", "../../../../outside"),
        ("A/1", "0/../../B"),
        ("../outside", "0"),
        ("A/1", "/"),
        ("/", "0"),
        ("A/out", "0"),
    ],
)
def test_a_path_of_a_plate_that_leads_out_is_refused_under_an_id_in_the_folder(tmp_path, well, field):
    plate = tmp_path / "slides" / "p.zarr"
    touch(plate, "A/1/0/.zarray", "A/B/.zarray", "A/2/0/.zarray")
    touch(tmp_path, "outside/0/.zarray")
    (plate / "A/out").symlink_to(tmp_path / "outside")
    (plate / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": well}, {"path": "A/2"}]}}))
    (plate / "A/1/.zattrs").write_text(json.dumps({"well": {"images": [{"path": field}]}}))
    (plate / "A/2/.zattrs").write_text(json.dumps({"well": {"images": [{"path": "0"}]}}))
    images, refused = list_images(tmp_path / "slides", follow_links=False)
    assert images == {"p/A2_f0": plate / "A/2/0"}
    ((name, (_, reason)),) = refused.items()
    assert "leads out of" in reason
    assert ".." not in name.split("/")


def test_folders_of_file_servers_hold_no_slides(tmp_path):
    names = ["@eaDir", "$RECYCLE.BIN", "~snapshot", ".snapshot", "lost+found", "#recycle", "System Volume Information"]
    touch(tmp_path, *(f"{name}/a.tif" for name in names), "plate/@eaDir/b.tif/SYNO.jpg", "._c.tif", "snapshot/d.tif")
    assert list(find_images(tmp_path)) == ["snapshot/d"]


def test_the_files_of_a_set_are_one_slide(tmp_path):
    touch(tmp_path, "z1.ome.tif", "sub/../z2.ome.tif", "alone.tif", "m.mrxs", "m/Data.dat", "m/preview.jpg", "v-1.jpg")
    (tmp_path / "set.companion.ome").write_text('<UUID FileName="z1.ome.tif"/><UUID FileName="z2.ome.tif"/>')
    (tmp_path / "v.vms").write_text("[Virtual Microscope Specimen]\nImageFile=v-1.jpg\n")
    assert list(find_images(tmp_path)) == ["alone", "m", "set", "v"]
    assert parts_of(tmp_path / "set.companion.ome") == [tmp_path / "z1.ome.tif", tmp_path / "z2.ome.tif"]


def test_a_set_that_lists_its_own_folder_hides_nothing(tmp_path):
    touch(tmp_path, "a.tif")
    (tmp_path / "set.companion.ome").write_text('<UUID FileName="."/><UUID FileName="/"/>')
    assert list(find_images(tmp_path)) == ["a", "set"]
