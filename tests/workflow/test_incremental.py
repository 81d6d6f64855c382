"""Only what changed is redone, by real runs; what each change plans is in tests/pipeline/project/jobs/test_todo.py."""

import html
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from pipeline.base.files import read_json
from pipeline.prediction.store import open_prediction
from tests.support.paths import ROOT
from tests.support.workflow import FINISHED, ODD, SAMPLES, Project

NEW = np.random.default_rng(2).integers(0, 255, (60, 80)).astype(np.uint8)
REPORT = {"report": 1, "finish": 1, "all": 1}
STAGES = {"tile": 1, "predict": 1, "stitch": 1, "objects": 1}


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory, python) -> Project:
    return replace(finished.copy_to(tmp_path_factory.mktemp("incremental") / "project"), python=python)


def labels_of(pixels):
    return (pixels > 99).astype(np.uint8)


def configure(project, **settings):
    """Change parts of the configuration of the finished project."""
    project.configure(**FINISHED | settings)


def write_sheet(project, text):
    (project.folder / "config" / "samples.csv").write_text(text)


def replace_slide(project, sample, pixels, time_s=10**9):
    """Replace a slide by a file that is older than its results."""
    os.utime(project.drop(f"slides/{sample}.tif", pixels), (time_s, time_s))


# These plan only, and leave the project as it is.


def test_a_finished_project_has_nothing_to_do(project):
    config = project.folder / "config" / "config.yaml"
    before = config.read_text()
    config.write_text("# a comment\n" + before)
    assert project.planned() == {}
    config.write_text(before)
    done = project.snakemake("--dry-run")
    assert "Nothing to be done" in done.stdout + done.stderr


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


def test_a_network_that_was_deleted_is_trained_again(project):
    models = project.folder / "results" / "models"
    models.rename(project.folder / "models")
    try:
        planned = project.planned()
    finally:
        (project.folder / "models").rename(models)
    assert planned["train_network"] == 1


def test_without_the_records_of_snakemake_only_what_changed_is_planned(project):
    shutil.move(project.folder / ".snakemake", project.folder / "records")
    try:
        assert project.planned() == {}
        configure(project, metrics={"tolerance_px": 3.0})
        assert project.planned() == {"evaluate": 1} | REPORT
    finally:
        shutil.rmtree(project.folder / ".snakemake", ignore_errors=True)
        shutil.move(project.folder / "records", project.folder / ".snakemake")
        configure(project)


# From here each test goes on with the project as the test before left it.


def run(project):
    printed = project.run()
    assert project.planned() == {}
    return printed


def files(project, kind="masks"):
    """Time and content of the files of one kind of result."""
    folder = project.folder / "results" / kind / "net"
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def times(project, kind):
    return {name: time_ns for name, (time_ns, _) in files(project, kind).items()}


def batches(project):
    samples = read_json(project.folder / "results" / "slides.json")["samples"]
    return {name: sample["batch"] for name, sample in samples.items()}


def test_a_first_run_segments_all_slides_and_those_of_a_folder_share_jobs(project):
    table = project.metrics()
    assert sorted(table.index) == sorted(SAMPLES)
    assert (table["status"] == "done").all()
    assert table["dice_mean"].notna().sum() == 2
    page = (project.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert html.escape(ODD, quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
    with tifffile.TiffFile(project.folder / "results" / "masks" / "net" / "alone.ome.tiff") as mask:
        assert mask.series[0].shape == SAMPLES["alone"]
    assert set(batches(project).values()) == {"0001", "plate/0001"}
    ledgers = {path.name for path in (project.folder / "results/ledgers/stitch/net").rglob("*.json")}
    assert ledgers == {"0001.json"}


def test_tiles_are_verified_on_request_alone(project):
    verification = project.folder / "results" / "verification" / "net" / "plate" / "b.json"
    project.run(str(verification.relative_to(project.folder)))
    assert read_json(verification)["law"] == "holds"
    assert "verification" in project.snakemake("--dry-run", "verification").stdout


def test_a_slide_added_to_a_folder_and_a_reference_leave_the_masks_of_the_others_as_they_are(project, micrograph):
    before, of_before = files(project), batches(project)
    project.drop("slides/plate/new.tif", micrograph.T.copy())
    project.drop(f"references/plate/{ODD}.tif", labels_of(NEW))
    assert project.planned() == STAGES | {"evaluate": 1} | REPORT
    run(project)
    after = files(project)
    assert after.pop("plate/new.ome.tiff")
    assert after == before
    assert batches(project) == of_before | {"plate/new": "plate/0002"}
    table = project.metrics()
    assert table["uncertain"].notna().all()
    assert table.loc[f"plate/{ODD}", "pixels"] == NEW.size
    assert ">Verification</h2>" in (project.folder / "results" / "report.html").read_text()


def test_a_slide_that_is_replaced_and_then_moved_back_is_segmented_each_time(project, micrograph):
    before, kept = files(project), project.folder / "kept.tif"
    project.slide("plate/new").rename(kept)
    replace_slide(project, "plate/new", micrograph[:30, :30])
    run(project)
    second = files(project)
    kept.rename(project.slide("plate/new"))
    run(project)
    after = files(project)
    first, other, last = (state.pop("plate/new.ome.tiff")[1] for state in (before, second, after))
    assert before == second == after
    assert first == last != other


def test_a_slide_of_a_batch_from_the_future_is_segmented_once_and_alone(project):
    before = times(project, "predictions")
    replace_slide(project, "plate/b", tifffile.imread(project.slide("plate/b"))[::-1].copy(), time.time() + 10**7)
    run(project)
    after = times(project, "predictions")
    assert after.pop("plate/b.zarr.zip") != before.pop("plate/b.zarr.zip")
    assert after == before


def test_masks_that_were_deleted_or_overwritten_are_made_again_alone(project):
    before, masks = files(project), project.folder / "results/masks/net/plate"
    (masks / "a.ome.tiff").unlink()
    (masks / "b.ome.tiff").write_text("junk")
    assert project.planned() == {"stitch": 1} | REPORT
    run(project)
    after = files(project)
    for name in ("plate/a.ome.tiff", "plate/b.ome.tiff"):
        assert after[name][1] == before.pop(name)[1]
    assert after.items() > before.items()


def test_a_run_that_ended_before_the_network_goes_on(project, micrograph):
    project.drop("slides/plate/late.tif", micrograph[:40].copy())
    project.run("--until", "tile")
    plans, of_before = times(project, "plans"), batches(project)
    project.drop("slides/plate/later.tif", micrograph[:, :40].copy())
    assert project.planned() == {"tile": 1, "predict": 2, "stitch": 2, "objects": 2} | REPORT
    run(project)
    assert batches(project).items() > of_before.items()
    assert times(project, "plans").items() > plans.items()


def test_without_slides_json_the_masks_are_the_same(project):
    before = {name: content for name, (_, content) in files(project).items()}
    (project.folder / "results" / "slides.json").write_text("{")
    run(project)
    assert {name: content for name, (_, content) in files(project).items()} == before


def test_a_watershed_has_its_probabilities_which_stay_until_they_are_needed_again(project):
    for sample in ("alone", "plate/late", "plate/later"):
        project.slide(sample).unlink()
    configure(project, masks={"instances": "watershed"})
    run(project)
    with tifffile.TiffFile(project.folder / "results" / "masks" / "net" / "plate" / "a.ome.tiff") as mask:
        classes, instances = (series.asarray() for series in mask.series)
    assert ((instances > 0) == (classes > 0)).all()
    assert len(np.unique(instances[instances > 0])) == project.metrics().loc["plate/a", "objects_predicted"]
    before = times(project, "predictions")
    with open_prediction(project.folder / "results/predictions/net/plate/a.zarr.zip") as group:
        assert group["probabilities"].shape == (2, *SAMPLES["plate/a"])
    configure(project)
    run(project)
    assert times(project, "predictions") == before
    configure(project, masks={"instances": "watershed", "neck": 0.5})
    assert project.planned().keys() == {"stitch", "objects", "evaluate", *REPORT}
    configure(project)


def test_predictions_that_were_removed_are_made_again_only_when_a_mask_needs_them(project):
    shutil.rmtree(project.folder / "results" / "predictions")
    assert project.planned() == {}
    configure(project, masks={"instances": "none"})
    assert "predict" in project.planned()
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
    configure(project)  # it waits no longer: the next run segments it
    assert project.planned().keys() >= {"predict"}
    copied.unlink()
    (project.folder / "config" / "samples.csv").unlink()


def test_the_report_of_snakemake_is_made_offline(project):
    project.run()
    project.run("--report", str(project.folder / "report.zip"))
    assert (project.folder / "report.zip").stat().st_size > 10_000
