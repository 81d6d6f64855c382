"""Only what changed is redone: a table of changes and the jobs that each plans, then days in the life of a project."""

import html
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from pipeline.base.files import read_json
from tests.support.paths import ROOT
from tests.support.workflow import Project

ODD = '-it\'s; "ünïcode" $(x) µm'
NETWORK = {"options": {"width": 2, "depth": 2}, "patch_px": 32, "batch_size": 2, "max_steps": 2, "validate_every": 2}
NEW = np.random.default_rng(2).integers(0, 255, (60, 80)).astype(np.uint8)
REPORT = {"report": 1, "all": 1}
ONE = {
    "tile": 1,
    "predict": 1,
    "stitch": 1,
    "objects": 1,
    "inspect": 1,
} | REPORT
MASKS = {"stitch": 5, "objects": 5, "evaluate": 1} | REPORT
NETWORKS = {"tile": 5, "predict": 3} | MASKS
SLIDES = ("alone", "other", "plate 1/a", "plate 1/b", f"plate 1/{ODD}")


@pytest.fixture(scope="module")
def project(tmp_path_factory, micrograph) -> Project:
    """A finished run: two slides alone, one with a reference, a folder of three, and a network trained for them."""
    made = Project(tmp_path_factory.mktemp("project"))
    for name in ("a", "b"):
        made.drop(f"training/images/{name}.tif", micrograph)
        made.drop(f"training/labels/{name}.tif", labels_of(micrograph))
    for number, sample in enumerate(SLIDES):
        made.drop(f"slides/{sample}.tif", np.roll(micrograph, number, axis=0))
    made.drop("references/alone.tif", labels_of(micrograph))
    configure(made)
    done = made.snakemake()
    assert done.returncode == 0, done.stderr
    return made


def labels_of(pixels):
    return (pixels > 99).astype(np.uint8)


def configure(project, network=NETWORK, **settings):
    project.configure(models={"net": NETWORK | network}, **settings)


def write_sheet(project, text):
    (project.folder / "config" / "samples.csv").write_text(text)


def path_of(project, sample):
    return project.folder / "data" / "slides" / f"{sample}.tif"


def replace_slide(project, sample, pixels):
    """By a file that is older than its results, which no comparison of times shows."""
    os.utime(project.drop(f"slides/{sample}.tif", pixels), (10**9, 10**9))


def comment(project):
    config = project.folder / "config" / "config.yaml"
    config.write_text("# a comment\n" + config.read_text())


@pytest.fixture
def unchanged(project, tmp_path):
    """The project, which is as it was when the test is over; planning writes nothing."""
    before, found = tmp_path / "before", project.folder / "results" / "slides.json"
    for name in ("data", "config"):
        shutil.copytree(project.folder / name, before / name)
    content = found.read_bytes()
    yield project
    assert not found.exists() or found.read_bytes() == content
    found.write_bytes(content)
    for name in ("data", "config"):
        shutil.rmtree(project.folder / name)
        shutil.copytree(before / name, project.folder / name)


CHANGES = {
    "touch nothing": (lambda project: project, {}),
    "edit a comment": (comment, {}),
    "lose results/slides.json": (lambda project: (project.folder / "results/slides.json").unlink(), {}),
    "add a slide alone": (lambda project: project.drop("slides/new.tif", NEW), ONE),
    "add a slide to a folder": (lambda project: project.drop("slides/plate 1/new.tif", NEW), ONE),
    "add a folder of two": (
        lambda project: [project.drop(f"slides/plate 2/{name}.tif", NEW) for name in "ab"],
        dict.fromkeys(ONE, 2) | {"predict": 1} | REPORT,
    ),
    "replace a slide alone": (lambda project: replace_slide(project, "other", NEW), ONE),
    "replace a slide of a folder": (lambda project: replace_slide(project, "plate 1/a", NEW), ONE),
    "delete a slide alone": (lambda project: path_of(project, "alone").unlink(), REPORT),
    "delete a slide of a folder": (lambda project: path_of(project, "plate 1/a").unlink(), REPORT),
    "add a reference": (
        lambda project: project.drop("references/other.tif", labels_of(NEW)),
        {"evaluate": 1} | REPORT,
    ),
    "change a metric option": (
        lambda project: configure(project, metrics={"tolerance_px": 3.0}),
        {"evaluate": 1} | REPORT,
    ),
    "change a stitch option": (lambda project: configure(project, masks={"instances": "none"}), MASKS),
    "ask for probabilities that are not there": (
        lambda project: configure(project, masks={"instances": "watershed"}),
        {"predict": 3} | MASKS,
    ),
    "change the tile size": (lambda project: configure(project, tiling={"tile_px": 32}), NETWORKS),
    "change the budget": (lambda project: configure(project, tiling={"memory_mb": 3000}), REPORT),
    "change the learning rate": (
        lambda project: configure(project, {"learning_rate": 0.5}),
        {"train": 1} | NETWORKS,
    ),
    "add a group to the sheet": (lambda project: write_sheet(project, "sample,group\nalone,mouse\n"), REPORT),
    "add a batch to the sheet": (lambda project: write_sheet(project, "sample,batch\nalone,night\n"), {}),
    "state a pixel size in the sheet": (
        lambda project: write_sheet(project, "sample,pixel_size_um\nplate 1/a,0.5\nplate 1/b,\n"),
        ONE,
    ),
    "state channels in the sheet": (
        lambda project: write_sheet(project, "sample,channels\nplate 1/a,DAPI\n"),
        ONE,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_plans_what_it_must(unchanged, change):
    do, jobs = CHANGES[change]
    do(unchanged)
    assert unchanged.planned() == jobs


def test_another_patch_version_is_nothing(project, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "known = metadata.version\n"
        "metadata.version = lambda name: '99.0.1' if name == 'slidemill' else known(name)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    said = subprocess.run(
        [sys.executable, "-c", "import pipeline; print(pipeline.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "99.0.1\n"
    assert project.planned() == {}


# From here each test is a day after the one before.


def run(project):
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    assert project.planned() == {}
    return done


def masks(project):
    """Time and content of every mask."""
    folder = project.folder / "results" / "masks" / "net"
    return {name: (time, (folder / name).read_bytes()) for name, time in project.masks().items()}


def batches(project):
    samples = read_json(project.folder / "results" / "slides.json")["samples"]
    return {name: sample["batch"] for name, sample in samples.items()}


def predictions(project):
    """Time of every prediction, by batch."""
    folder = project.folder / "results" / "predictions" / "net"
    return {
        str(path.relative_to(folder)).removesuffix(".zarr.zip"): path.stat().st_mtime_ns
        for path in folder.rglob("*.zip")
    }


def test_a_first_run_segments_all_slides_and_those_of_a_folder_share_a_job(project, micrograph):
    table = project.metrics()
    assert sorted(table.index) == sorted(SLIDES)
    assert (table["status"] == "done").all()
    assert table["dice_mean"].notna().sum() == 1
    page = (project.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert html.escape(ODD, quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
    with tifffile.TiffFile(project.folder / "results" / "masks" / "net" / "alone.ome.tiff") as mask:
        assert mask.series[0].shape == micrograph.shape
    assert len(predictions(project)) == 3
    assert len({batch for name, batch in batches(project).items() if name.startswith("plate 1/")}) == 1


def test_a_slide_added_to_a_folder_and_a_reference_leave_the_masks_of_the_others_as_they_are(project, micrograph):
    before, of_before = masks(project), batches(project)
    project.drop("slides/plate 1/new.tif", micrograph.T.copy())
    project.drop("references/plate 1/a.tif", labels_of(micrograph))
    run(project)
    after = masks(project)
    assert after.pop("plate 1/new.ome.tiff")
    assert after == before
    assert batches(project).items() > of_before.items()
    table = project.metrics()
    assert table["uncertain"].notna().all()
    assert table.loc["plate 1/a", "pixels"] == 70 * 90


def test_a_slide_that_is_replaced_and_then_moved_back_is_segmented_as_what_it_is(project, micrograph):
    before, kept = masks(project), project.folder / "kept.tif"
    path_of(project, "plate 1/new").rename(kept)
    replace_slide(project, "plate 1/new", micrograph[:30, :30])
    run(project)
    second = masks(project)
    kept.rename(path_of(project, "plate 1/new"))
    run(project)
    after = masks(project)
    first, other, last = (state.pop("plate 1/new.ome.tiff")[1] for state in (before, second, after))
    assert before == second == after
    assert first == last != other


def test_a_run_that_ended_before_the_network_goes_on_with_the_same_batches(project, micrograph):
    project.drop("slides/plate 1/late.tif", micrograph[:40].copy())
    assert project.snakemake("--until", "tile").returncode == 0
    of_before = batches(project)
    project.drop("slides/plate 1/later.tif", micrograph[:, :40].copy())
    assert project.planned()["predict"] == 2
    before = masks(project)
    run(project)
    assert batches(project).items() > of_before.items()
    assert masks(project).items() > before.items()


def test_without_slides_json_a_folder_is_predicted_again_and_its_masks_are_the_same(project):
    before, of_before = masks(project), predictions(project)
    (project.folder / "results" / "slides.json").write_text("{")
    assert project.planned() == {"predict": 1, "stitch": 6, "objects": 6, "evaluate": 1, **REPORT}
    run(project)
    after = masks(project)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    assert predictions(project).items() > of_before.items()


def test_probabilities_that_are_there_serve_until_they_are_asked_for_again(project):
    configure(project, masks={"instances": "watershed"})
    run(project)
    before = predictions(project)
    configure(project)
    run(project)
    assert predictions(project) == before
    configure(project, masks={"instances": "watershed", "neck": 0.5})
    assert project.planned().keys() == {"stitch", "objects", "evaluate", "report", "all"}
    configure(project)


def test_a_prediction_that_was_removed_is_made_again_only_when_a_mask_needs_it(project, micrograph):
    for path in (project.folder / "results" / "predictions" / "net" / "plate 1").glob("*.zip"):
        path.unlink()
    assert project.planned() == {}
    project.drop("slides/plate 1/last.tif", micrograph[:25].copy())
    assert project.planned() == ONE
    path_of(project, "plate 1/last").unlink()
    configure(project, masks={"instances": "none"})
    assert project.planned()["predict"] == 1
    configure(project)


def test_a_slide_that_is_still_copied_waits_deleted_ones_leave_the_report_and_nothing_else_runs(project, micrograph):
    copied = project.drop("slides/copied.tif", micrograph)
    write_sheet(project, "sample,group\ncopied,1\ndeleted long ago,2\n")
    configure(project, settle_s=3600)
    for sample in ("plate 1/new", "plate 1/late", "plate 1/later", "other"):
        path_of(project, sample).unlink()
    assert project.planned() == REPORT
    done = run(project)
    assert "config/samples.csv: no slide 'deleted long ago': deleted, or misspelt" in done.stderr
    assert "4 done, 1 waiting\n  waiting: copied: data/slides/copied.tif: changed less than settle_s" in done.stderr
    table = project.metrics()
    assert sorted(table.index) == sorted({*SLIDES, "copied"} - {"other"})
    assert table.loc["copied", "status"] == "waiting"
    copied.unlink()
    (project.folder / "config" / "samples.csv").unlink()
    configure(project)


def test_a_slice_is_segmented_and_the_report_covers_all(project, micrograph):
    for name in "abcd":
        project.drop(f"slides/slice {name}.tif", np.roll(micrograph, ord(name), axis=1))
    done = project.snakemake("segmented", "--batch", "segmented=3/4")
    assert done.returncode == 0, done.stderr
    table = project.metrics()
    assert table["status"].value_counts().to_dict() == {"done": 6, "waiting": 2}
    assert set(table.loc[table["status"] == "waiting", "error"]) == {"not run yet; the next run takes it"}
    assert "6 done, 2 waiting" in done.stderr
    assert not (project.folder / "results" / "provenance.json").exists()
    run(project)
    assert (project.metrics()["status"] == "done").all()


def test_the_report_of_snakemake_is_made_offline(project):
    done = project.snakemake("--report", str(project.folder / "report.zip"))
    assert done.returncode == 0, done.stderr
    assert (project.folder / "report.zip").stat().st_size > 10_000
