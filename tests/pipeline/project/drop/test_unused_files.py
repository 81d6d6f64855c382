"""What nothing uses is named, each kind of file once, with the nearest name where there is one."""

import pytest

from pipeline.project.drop.drop_folder import find_samples
from pipeline.project.drop.names import matched, nearest_to
from pipeline.project.drop.unused_files import unused_files
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import Settings

SETTINGS = Settings(settle_s=0)
DECOMPOSED, COMPOSED = "Mu\u0308ller", "M\u00fcller"


@pytest.fixture
def drop(tmp_path, monkeypatch):
    """Put empty files below data/, in an empty project."""
    monkeypatch.chdir(tmp_path)

    def put(*names):
        for name in names:
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).write_bytes(b"")

    return put


def unused():
    return unused_files(SETTINGS, find_samples(SETTINGS), [])


def test_files_that_are_no_slides_are_named_once_per_suffix(drop):
    drop("slides/a.tif", "slides/notes.txt", "slides/b/more.TXT", "slides/c.tif.part", "slides/README", "slides/x.bmp")
    drop("slides/m.mrxs", "slides/m/Slidedat.ini", "slides/.hidden.txt", "slides/@eaDir/a.txt")
    assert unused() == [
        "data/slides/README (without suffix): not used: no format of slides",
        "data/slides/x.bmp (*.bmp): not used: no format of slides",
        "data/slides/c.tif.part (*.part): not used: not downloaded completely",
        "data/slides/b/more.TXT and 1 more (*.txt): not used: no format of slides",
    ]


def test_references_belong_to_slides_by_name_in_any_unicode_form_and_format(drop):
    drop(f"slides/{DECOMPOSED}.tif", "slides/a.ome.tif", "slides/b.tif", "slides/c.tif", "slides/p/d.tif")
    drop(f"references/{COMPOSED}.tif", "references/a.geojson", "references/b.tif.geojson", "references/c.zip")
    drop("references/p/d.png")
    found = {name: sample.reference.removeprefix("data/references/") for name, sample in find_samples(SETTINGS).items()}
    assert found == {
        DECOMPOSED: f"{COMPOSED}.tif",
        "a": "a.geojson",
        "b": "b.tif.geojson",
        "c": "c.zip",
        "p/d": "p/d.png",
    }
    assert unused() == []


def test_references_of_no_slide_are_named_with_the_nearest_slide(drop):
    drop("slides/case.tif", "slides/cells.tif", "slides/good.tif", "references/good.tif")
    drop("references/Case.tif", "references/cells_masks.tif", "references/zzz.png")
    assert unused() == [
        "data/references/Case.tif: not used: there is no slide 'Case'; the nearest name is 'case'",
        "data/references/cells_masks.tif: not used: there is no slide 'cells_masks'; the nearest name is 'cells'",
        "data/references/zzz.png: not used: there is no slide 'zzz'",
    ]
    assert find_samples(SETTINGS)["case"].reference is None


def test_regions_belong_to_slides_by_name_and_are_outlines(drop):
    drop("slides/a.tif", "slides/p/b.tif", "slides/case.tif", "regions/a.zip", "regions/p/b.tif.geojson")
    drop("regions/Case.geojson", "regions/p/b.tif", "regions/notes.txt")
    found = find_samples(SETTINGS)
    assert {name: sample.regions for name, sample in found.items()} == {
        "a": "data/regions/a.zip",
        "p/b": "data/regions/p/b.tif.geojson",
        "case": None,
    }
    assert unused() == [
        "data/regions/p/b.tif (*.tif): not used: no outlines (.geojson, .roi, .zip)",
        "data/regions/notes.txt (*.txt): not used: no outlines (.geojson, .roi, .zip)",
        "data/regions/Case.geojson: not used: there is no slide 'Case'; the nearest name is 'case'",
    ]
    drop("regions/a.geojson")
    assert "its regions: data/regions/a.zip and data/regions/a.geojson would be" in find_samples(SETTINGS)["a"].refused


def test_labels_are_matched_and_named_likewise(drop, tmp_path):
    drop(f"training/images/{DECOMPOSED}.tif", f"training/labels/{COMPOSED}.tif", "training/labels/other.tif")
    (pair,) = find_pairs(tmp_path / "data/training/images", tmp_path / "data/training/labels")
    assert (pair.name, pair.labels.stem) == (DECOMPOSED, COMPOSED)
    assert unused_files(SETTINGS, {}, [DECOMPOSED]) == [
        "data/training/labels/other.tif: not used: there is no training image 'other'"
    ]


def test_the_same_name_comes_first():
    assert matched(["a"], {"a.tif": 1, "a": 2}) == {"a": ("a", 2)}
    assert matched([DECOMPOSED], {COMPOSED: 1, DECOMPOSED: 2}) == {DECOMPOSED: (DECOMPOSED, 2)}
    assert nearest_to("well_A1", ["well_A01", "b"]) == "; the nearest name is 'well_A01'"
    assert nearest_to("x", []) == ""
