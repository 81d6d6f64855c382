"""What the rules ask for, without Snakemake: samples, jobs and what they need, and the begin and end of a run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import write_json
from pipeline.project.drop.drop_folder import find_samples, last_run
from pipeline.project.jobs import run as module
from pipeline.project.jobs.run import Run, write_missing_report
from pipeline.settings.schema import parse_settings
from tests.support.slide_files import touch

SETTINGS = {
    "settle_s": 0,
    "models": {"folded": {"folds": 2}, "given": {"checkpoint": "given.safetensors"}, "next": {"pretrained": "given"}},
    "ensembles": {"both": {"members": ["folded", "given"]}},
}


@pytest.fixture
def project(in_folder):
    """Two slides in one folder, one with a reference, beside one that is refused; four training pairs."""
    touch(in_folder / "data", "slides/plate/a.tif", "slides/plate/b.tif", "slides/c{}.tif", "references/plate/a.tif")
    touch(in_folder, "given.safetensors", "x", "model.json")
    touch(in_folder / "data" / "training", *(f"{part}/{name}.tif" for part in ("images", "labels") for name in "1234"))
    return in_folder


def find(*, is_main=True, on_cluster=False, only_training=False, **settings):
    settings = parse_settings(SETTINGS | settings, source="")
    return Run.find(settings, is_main=is_main, on_cluster=on_cluster, waits=False, only_training=only_training)


@pytest.mark.usefixtures("project")
def test_a_run_finds_slides_batches_and_training_images():
    run = find()
    assert run.batches == {"plate/0001": ["plate/a", "plate/b"]}
    assert run.samples["plate/a"].reference == "data/references/plate/a.tif"
    assert [pair.name for pair in run.training.pairs] == ["1", "2", "3", "4"]
    assert {name: [pair.name for pair in pairs] for name, pairs in run.training.held_back.items()} == {
        "folded/fold1": ["1", "2"],
        "folded/fold2": ["3", "4"],
        "next": ["4"],
    }


@pytest.mark.usefixtures("project")
def test_without_training_no_training_image_is_needed():
    settings = {"models": {"given": {"checkpoint": "x"}}, "ensembles": {}, "training": {"images": "none"}}
    assert find(**settings).training.pairs == []


def test_a_checkpoint_that_is_not_there_stops_the_run_before_its_first_job(project):
    (project / "given.safetensors").unlink()
    with pytest.raises(SlidemillError, match=r"^models.given.checkpoint: there is no given.safetensors; correct it"):
        find()


def test_a_project_without_slides_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"models": {"given": {"checkpoint": "x"}}, "ensembles": {}}
    with pytest.raises(SlidemillError, match=rf"no slides in {tmp_path}/data/slides \(suffixes: .*\); drop some, set"):
        find(**settings)


def test_annotated_images_alone_are_trained_on(project):
    shutil.rmtree(project / "data" / "slides")
    run = find()
    assert run.samples == {}
    assert {job.stage for job in run.todo.jobs} == {"weigh", "train", "validate", "combine"}


@pytest.mark.usefixtures("project")
def test_a_run_that_only_trains_leaves_the_slides_to_the_next_one():
    everything, networks = find(), find(only_training=True)
    assert networks.samples == everything.samples
    assert networks.todo.jobs == {job for job in everything.todo.jobs if not job.batch}


def test_a_job_uses_the_samples_of_its_run_and_plans_nothing(project):
    find().begin("snakemake")
    touch(project / "data" / "slides", "late.tif")
    run = find(is_main=False)
    assert "late" not in run.samples
    assert run.todo.jobs == frozenset()
    assert run.before("predict", "given", "plate/0001") == []
    assert "late" in find().samples


def test_names_that_a_cluster_cannot_pass_are_refused_there(project):
    touch(project / "data" / "slides", "a, b/c.tif")
    assert "a, b/0001" in find().batches
    assert "a, b/0001" not in find(on_cluster=True).batches


def test_the_first_reasons_are_warnings(project):
    touch(project / "data" / "slides", *(f"{number}{{}}.tif" for number in range(9)))
    (project / "config").mkdir()
    (project / "config" / "samples.csv").write_text("sample,group\ngone,x\nplate/a,x\nmisspelt,x\n")
    warnings = find().warnings
    assert len(warnings) == 4
    assert all(line.startswith("skipped: ") for line in warnings[:3])
    assert warnings[3] == "config/samples.csv: no slide 'gone' and 1 more: deleted, or misspelt"


@pytest.mark.usefixtures("project")
def test_a_job_needs_the_ledgers_that_this_run_makes_before():
    run = find()

    def needed(*job):
        return [path.removeprefix("results/ledgers/").removesuffix(".json") for path in run.before(*job)]

    assert needed("weigh", "folded") == []
    assert needed("train", "folded/fold1") == ["weigh/folded"]
    assert needed("validate", "folded/fold1") == ["train/folded/fold1"]
    assert needed("combine", "folded") == ["train/folded/fold1", "train/folded/fold2"]
    assert needed("combine", "both") == ["combine/folded"]
    assert needed("tile", "both", "plate/0001") == ["combine/both"]
    assert needed("tile", "given", "plate/0001") == []
    assert needed("evaluate", "next", "plate/0001") == [
        "train/next",
        *(f"{stage}/next/plate/0001" for stage in ("stitch", "predict", "tile")),
    ]


@pytest.mark.usefixtures("project")
def test_networks_and_where_they_start():
    run = find()
    assert run.network("given") == "given.safetensors"
    assert run.members("both") == ["results/models/folded/model.safetensors", "given.safetensors"]
    assert run.members("folded") == [f"results/models/folded/fold{fold}/model.safetensors" for fold in (1, 2)]
    assert json.loads(run.config("train", "next"))["model"]["pretrained"] == "given.safetensors"
    assert run.config("tile", "given") is run.config("tile", "given")


@pytest.mark.usefixtures("project")
def test_a_comparison_of_an_ensemble_takes_as_long_as_its_held_back_images():
    models = SETTINGS["models"] | {"next": {}, "other": {}}
    members = {"pair": {"members": ["next", "other"], "symmetries": "flips"}, "both": {"members": ["next", "given"]}}
    run = find(models=models, ensembles=members)
    assert [pair.name for pair in run.training.held_back["other"]] == ["4"]
    assert run.compared_mpx("pair") == pytest.approx(2 * 4 * run.training_mpx / 4)
    assert run.compared_mpx("both") == run.compared_mpx("folded") == 0


def test_a_run_begins_without_what_killed_jobs_left(project):
    run = find()
    kept = [
        project / "results/predictions/given/plate/.partial-a.zarr.zip",
        project / "results/ledgers/predict/given/plate/.partial-0001.json",
    ]
    left = project / "results/masks/given/plate/.partial-a.ome.tiff"
    for folder in (*kept, left):
        folder.mkdir(parents=True)
    write_json(project / paths.PROVENANCE, {"run": "an older one"})
    run.begin("snakemake --cores 1")
    assert [folder.exists() for folder in (*kept, left)] == [True, True, False]
    assert last_run().samples == find_samples(run.settings)
    assert not (project / paths.PROVENANCE).exists()


def test_a_report_is_one_of_the_run_that_made_it(project):
    run = find(models={"given": {"checkpoint": "x"}}, ensembles={})
    assert not run.is_reported
    changes = [
        {"metrics": {"tolerance_px": 9.0}},
        {"samples": "other.csv"},
    ]
    reports = {run.report} | {
        find(models={"given": {"checkpoint": "x"}}, ensembles={}, **one).report for one in changes
    }
    touch(project, "data/slides/new.tif")
    reports.add(find(models={"given": {"checkpoint": "x"}}, ensembles={}).report)
    assert len(reports) == 4


@pytest.fixture
def report(project, monkeypatch):  # noqa: ARG001
    """A run has begun. The command of the report is recorded instead of run; it ends with ``returncode``."""
    find().begin("snakemake")

    def record(command, **options):
        record.command, record.python_path = command, options["env"]["PYTHONPATH"]
        options["stderr"].write("12:00:00 start\nerror: report: no room [SlidemillError]\n")
        return subprocess.CompletedProcess(command, record.returncode)

    record.command, record.returncode = None, 0
    monkeypatch.setattr(module.subprocess, "run", record)
    return record


@pytest.mark.parametrize("before", ["", ":", ":/a::/b:", "/a:/b"])
def test_no_empty_entry_lets_modules_of_the_project_in(report, monkeypatch, before):
    monkeypatch.setenv("PYTHONPATH", before)
    assert write_missing_report(find(), Path("/workflow"))
    assert report.python_path == ("/workflow:/a:/b" if "a" in before else "/workflow")


def test_a_missing_report_is_written_by_the_code_of_the_workflow(report, project):
    assert write_missing_report(find(), Path("/workflow"))
    assert report.command[:6] == ["python", "-m", "pipeline", "report", "--output", "results"]
    assert report.python_path.split(":")[0] == "/workflow"
    report.command = None
    write_json(project / paths.PROVENANCE, {"run": find().report})
    assert write_missing_report(find(), Path("/workflow"))
    assert report.command is None  # the job of this run has written it


@pytest.mark.parametrize(
    ("returncode", "names", "message"),
    [
        (1, (), "the report could not be written either (logs/report.log): error: report: no room"),
        (0, ("logs",), "logs/report.log: cannot be written"),
    ],
)
def test_a_report_that_fails_too_is_one_line(report, project, capsys, returncode, names, message):
    report.returncode = returncode
    touch(project, *names)  # a file in the place of the folder
    assert not write_missing_report(find(), Path("/workflow"))
    assert message in capsys.readouterr().err
