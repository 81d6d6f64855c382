"""Only what changed is redone: first the jobs that each kind of change plans, then a series of runs."""

import html
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from pipeline.base.files import read_json
from pipeline.prediction.store import open_prediction
from tests.support.paths import ROOT
from tests.support.workflow import FINISHED, NETWORK, ODD, SAMPLES, Project

NEW = np.random.default_rng(2).integers(0, 255, (60, 80)).astype(np.uint8)
REPORT = {"report": 1, "all": 1}
ONE = {"tile": 1, "predict": 1, "stitch": 1, "objects": 1, "inspect": 1} | REPORT
MASKS = {"stitch": 4, "objects": 4, "evaluate": 2} | REPORT
NETWORKS = {"tile": 4, "predict": 2} | MASKS


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Project:
    return finished.copy_to(tmp_path_factory.mktemp("incremental") / "project")


def labels_of(pixels):
    return (pixels > 99).astype(np.uint8)


def configure(project, network=None, tiling=None, **settings):
    """Change parts of the configuration of the finished project."""
    changes = {"models": {"net": NETWORK | (network or {})}, "tiling": FINISHED["tiling"] | (tiling or {})}
    project.configure(**FINISHED | changes | settings)


def write_sheet(project, text):
    (project.folder / "config" / "samples.csv").write_text(text)


def replace_slide(project, sample, pixels):
    """Replace a slide by a file that is older than its results."""
    os.utime(project.drop(f"slides/{sample}.tif", pixels), (10**9, 10**9))


def comment(project):
    config = project.folder / "config" / "config.yaml"
    config.write_text("# a comment\n" + config.read_text())


@pytest.fixture
def unchanged(project, tmp_path):
    """The project; its data and configuration are restored after the test. Planning writes nothing."""
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
    "add a slide to a folder": (lambda project: project.drop("slides/plate/new.tif", NEW), ONE),
    "add a folder of two": (
        lambda project: [project.drop(f"slides/plate 2/{name}.tif", NEW) for name in "ab"],
        dict.fromkeys(ONE, 2) | {"predict": 1} | REPORT,
    ),
    "replace a slide alone": (lambda project: replace_slide(project, "alone", NEW), ONE),
    "replace a slide of a folder": (lambda project: replace_slide(project, f"plate/{ODD}", NEW), ONE),
    "delete a slide alone": (lambda project: project.slide("alone").unlink(), REPORT),
    "delete a slide of a folder": (lambda project: project.slide("plate/a").unlink(), REPORT),
    "add a reference": (
        lambda project: project.drop("references/alone.tif", labels_of(NEW)),
        {"evaluate": 1} | REPORT,
    ),
    "change a metric option": (
        lambda project: configure(project, metrics={"tolerance_px": 3.0}),
        {"evaluate": 2} | REPORT,
    ),
    "change a stitch option": (lambda project: configure(project, masks={"instances": "none"}), MASKS),
    "ask for probabilities that are not there": (
        lambda project: configure(project, masks={"instances": "watershed"}),
        {"predict": 2} | MASKS,
    ),
    "change the tile size": (lambda project: configure(project, tiling={"tile_px": 256}), NETWORKS),
    "change the budget": (lambda project: configure(project, tiling={"memory_mb": 3000}), REPORT),
    "change the learning rate": (
        lambda project: configure(project, {"learning_rate": 0.5}),
        {"train": 1} | NETWORKS,
    ),
    "add a group to the sheet": (lambda project: write_sheet(project, "sample,group\nalone,mouse\n"), REPORT),
    "add a batch to the sheet": (lambda project: write_sheet(project, "sample,batch\nalone,night\n"), {}),
    "state a pixel size in the sheet": (
        lambda project: write_sheet(project, "sample,pixel_size_um\nplate/a,0.5\nplate/b,\n"),
        ONE | {"evaluate": 1},
    ),
    "state channels in the sheet": (
        lambda project: write_sheet(project, "sample,channels\nplate/a,DAPI\n"),
        ONE | {"evaluate": 1},
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
    version = [sys.executable, "-c", "import pipeline; print(pipeline.__version__)"]
    assert subprocess.run(version, capture_output=True, text=True, check=True).stdout == "99.0.1\n"
    assert project.planned() == {}


# From here each test goes on with the project as the test before left it.


def run(project):
    printed = project.run()
    assert project.planned() == {}
    return printed


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


def test_a_first_run_segments_all_slides_and_those_of_a_folder_share_a_job(project):
    table = project.metrics()
    assert sorted(table.index) == sorted(SAMPLES)
    assert (table["status"] == "done").all()
    assert table["dice_mean"].notna().sum() == 2
    page = (project.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert html.escape(ODD, quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
    with tifffile.TiffFile(project.folder / "results" / "masks" / "net" / "alone.ome.tiff") as mask:
        assert mask.series[0].shape == SAMPLES["alone"]
    assert len(predictions(project)) == 2
    assert len({batch for name, batch in batches(project).items() if name.startswith("plate/")}) == 1


def test_tiles_are_verified_on_request_alone(project):
    verification = project.folder / "results" / "verification" / "net" / "plate" / "b.json"
    project.run(str(verification.relative_to(project.folder)))
    assert read_json(verification)["law"] == "holds"
    assert "verification" in project.snakemake("--dry-run", "verification").stdout


def test_a_slide_added_to_a_folder_and_a_reference_leave_the_masks_of_the_others_as_they_are(project, micrograph):
    before, of_before = masks(project), batches(project)
    project.drop("slides/plate/new.tif", micrograph.T.copy())
    project.drop(f"references/plate/{ODD}.tif", labels_of(NEW))
    run(project)
    after = masks(project)
    assert after.pop("plate/new.ome.tiff")
    assert after == before
    assert batches(project).items() > of_before.items()
    table = project.metrics()
    assert table["uncertain"].notna().all()
    assert table.loc[f"plate/{ODD}", "pixels"] == NEW.size
    assert ">Verification</h2>" in (project.folder / "results" / "report.html").read_text()


def test_a_slide_that_is_replaced_and_then_moved_back_is_segmented_each_time(project, micrograph):
    before, kept = masks(project), project.folder / "kept.tif"
    project.slide("plate/new").rename(kept)
    replace_slide(project, "plate/new", micrograph[:30, :30])
    run(project)
    second = masks(project)
    kept.rename(project.slide("plate/new"))
    run(project)
    after = masks(project)
    first, other, last = (state.pop("plate/new.ome.tiff")[1] for state in (before, second, after))
    assert before == second == after
    assert first == last != other


def test_a_run_that_ended_before_the_network_goes_on_with_the_same_batches(project, micrograph):
    project.drop("slides/plate/late.tif", micrograph[:40].copy())
    project.run("--until", "tile")
    of_before = batches(project)
    project.drop("slides/plate/later.tif", micrograph[:, :40].copy())
    assert project.planned()["predict"] == 2
    before = masks(project)
    run(project)
    assert batches(project).items() > of_before.items()
    assert masks(project).items() > before.items()


def test_without_slides_json_a_folder_is_predicted_again_and_its_masks_are_the_same(project):
    before, of_before = masks(project), predictions(project)
    (project.folder / "results" / "slides.json").write_text("{")
    assert project.planned() == {"predict": 1, "stitch": 6, "objects": 6, "evaluate": 3} | REPORT
    run(project)
    after = masks(project)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    assert predictions(project).items() > of_before.items()


def test_a_watershed_has_its_probabilities_which_stay_until_they_are_needed_again(project):
    for sample in ("alone", "plate/late", "plate/later"):
        project.slide(sample).unlink()
    configure(project, masks={"instances": "watershed"})
    run(project)
    with tifffile.TiffFile(project.folder / "results" / "masks" / "net" / "plate" / "b.ome.tiff") as mask:
        classes, instances = (series.asarray() for series in mask.series)
    assert ((instances > 0) == (classes > 0)).all()
    assert len(np.unique(instances[instances > 0])) == project.metrics().loc["plate/b", "objects_predicted"]
    before = predictions(project)
    newest = project.folder / "results" / "predictions" / "net" / f"{max(before, key=before.get)}.zarr.zip"
    with open_prediction(newest, "plate/b") as group:
        assert group["probabilities"].shape == (2, *SAMPLES["plate/b"])
    configure(project)
    run(project)
    assert predictions(project) == before
    configure(project, masks={"instances": "watershed", "neck": 0.5})
    assert project.planned().keys() == {"stitch", "objects", "evaluate", "report", "all"}
    configure(project)


def test_a_prediction_that_was_removed_is_made_again_only_when_a_mask_needs_it(project, micrograph):
    for path in (project.folder / "results" / "predictions" / "net" / "plate").glob("*.zip"):
        path.unlink()
    assert project.planned() == {}
    project.drop("slides/plate/last.tif", micrograph[:25].copy())
    assert project.planned() == ONE
    project.slide("plate/last").unlink()
    configure(project, masks={"instances": "none"})
    assert project.planned()["predict"] == 1
    configure(project)


def test_a_slide_that_is_still_copied_waits_and_deleted_ones_leave_the_report(project, micrograph):
    copied = project.drop("slides/copied.tif", micrograph)
    write_sheet(project, "sample,group\ncopied,1\ndeleted long ago,2\n")
    configure(project, settle_s=3600)
    project.slide("plate/new").unlink()
    assert project.planned() == REPORT
    printed = run(project)
    assert "config/samples.csv: no slide 'deleted long ago': deleted, or misspelt" in printed
    assert "3 done, 1 waiting\n  waiting: copied: data/slides/copied.tif: changed less than settle_s" in printed
    table = project.metrics()
    assert sorted(table.index) == sorted({*SAMPLES, "copied"} - {"alone"})
    assert table.loc["copied", "status"] == "waiting"
    copied.unlink()
    (project.folder / "config" / "samples.csv").unlink()
    configure(project)


def test_a_slice_is_segmented_and_the_report_covers_all(project, micrograph):
    for name in "abc":
        project.drop(f"slides/slice {name}.tif", np.roll(micrograph, ord(name), axis=1))
    printed = project.run("segmented", "--batch", "segmented=2/3")
    table = project.metrics()
    assert table["status"].value_counts().to_dict() == {"done": 4, "waiting": 2}
    assert set(table.loc[table["status"] == "waiting", "error"]) == {"not run yet; the next run takes it"}
    assert "4 done, 2 waiting" in printed
    assert not (project.folder / "results" / "provenance.json").exists()
    run(project)
    assert (project.metrics()["status"] == "done").all()


def test_the_report_of_snakemake_is_made_offline(project):
    project.run("--report", str(project.folder / "report.zip"))
    assert (project.folder / "report.zip").stat().st_size > 10_000
