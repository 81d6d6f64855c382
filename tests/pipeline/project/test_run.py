"""What the rules ask for, without Snakemake: samples, files to make, configurations, and the end of a run."""

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.project import run as module
from pipeline.project.drop_folder import find_samples, known_samples
from pipeline.project.run import Run, print_summary, write_report_after_failure
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
    touch(in_folder / "data" / "training", *(f"{part}/{name}.tif" for part in ("images", "labels") for name in "1234"))
    return in_folder


def find(*, is_main=True, on_cluster=False, **settings):
    return Run.find(parse_settings(SETTINGS | settings, source=""), is_main=is_main, on_cluster=on_cluster)


@pytest.mark.usefixtures("project")
def test_a_run_finds_slides_batches_and_training_images():
    run = find()
    assert run.slides == {name: f"data/slides/{name}.tif" for name in ("plate/a", "plate/b")}
    assert run.references == {"plate/a": "data/references/plate/a.tif"}
    assert [*run.batches.values()] == [["plate/a", "plate/b"]]
    assert [pair.name for pair in run.pairs] == ["1", "2", "3", "4"]
    assert {name: [pair.name for pair in pairs] for name, pairs in run.held_back.items()} == {
        "folded/fold1": ["1", "2"],
        "folded/fold2": ["3", "4"],
        "next": ["4"],
    }


@pytest.mark.usefixtures("project")
def test_without_training_no_training_image_is_needed():
    assert find(models={"given": {"checkpoint": "x"}}, ensembles={}, training={"images": "none"}).pairs == []


def test_a_project_without_slides_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SlidemillError, match=r"no slides in data/slides \(suffixes: .*\); drop some, or set `slides`"):
        find()


def test_a_job_uses_the_samples_of_its_run(project):
    find().begin("snakemake")
    touch(project / "data" / "slides", "late.tif")
    assert "late" not in find(is_main=False).samples
    assert "late" in find().samples


def test_names_that_a_cluster_cannot_pass_are_refused_there(project):
    touch(project / "data" / "slides", "a, b.tif")
    assert "a, b" in find().slides
    assert "a, b" not in find(on_cluster=True).slides


def test_the_first_reasons_are_warnings(project):
    touch(project / "data" / "slides", *(f"{number}{{}}.tif" for number in range(9)))
    (project / "config").mkdir()
    (project / "config" / "samples.csv").write_text("sample,group\ngone,x\nplate/a,x\nmisspelt,x\n")
    warnings = find().warnings
    assert len(warnings) == 4
    assert all(line.startswith("skipped: ") for line in warnings[:3])
    assert warnings[3] == "config/samples.csv: no slide 'gone' and 1 more: deleted, or misspelt"


@pytest.mark.usefixtures("project")
def test_networks_and_where_they_start():
    run = find()
    assert run.network("given") == "given.safetensors"
    assert run.members("both") == ["results/models/folded/model.safetensors", "given.safetensors"]
    assert run.members("folded") == [f"results/models/folded/fold{fold}/model.safetensors" for fold in (1, 2)]
    assert (run.start("next"), run.start("folded/fold1")) == ("given.safetensors", None)
    assert run.weight_maps(run.model_of("folded/fold1"))[0] == "results/weight_maps/folded/1.tif"


@pytest.mark.usefixtures("project")
def test_the_report_needs_every_result_once():
    run = find(ensembles={})
    targets = list(run.targets())
    (batch,) = run.batches
    models, samples = ("folded", "given", "next"), ("plate/a", "plate/b")
    expected = {f"results/appearance/{sample}.json" for sample in samples}
    expected |= {f"results/models/{name}/history.csv" for name in ("folded/fold1", "folded/fold2", "next")}
    expected |= {f"results/validation/folded/fold{fold}.csv" for fold in (1, 2)}
    for model in models:
        expected |= {f"results/predictions/{model}/{batch}.json", f"results/metrics/{model}/plate/a.csv"}
        expected |= {f"results/masks/{model}/{sample}.ome.tiff" for sample in samples}
        expected |= {f"results/objects/{model}/{sample}.csv" for sample in samples}
    assert set(targets) == expected
    assert len(targets) == len(expected)
    assert set(run.per_slide(paths.OBJECTS)) < expected


def test_a_row_of_the_sample_sheet_overrides_the_configuration(project):
    (project / "config").mkdir()
    (project / "config" / "samples.csv").write_text("sample,pixel_size_um\nplate/b,0.25\n")
    run = find()
    configs = {name: json.loads(run.config("tile", model="given", sample=f"plate/{name}")) for name in "ab"}
    assert [configs[name]["image"]["fallback_pixel_size_um"] for name in "ab"] == [None, 0.25]
    assert run.config("tile", model="given", sample="plate/a") is run.config("tile", model="given", sample="plate/a")
    (batch,) = run.batches
    assert not json.loads(run.config("predict", batch=batch))["probabilities"]


def test_pixels_of_a_job_are_those_of_its_slides(project):
    run = find()
    (project / "results/plans/given/plate").mkdir(parents=True)
    plan = {"slide": {"grid": {"shape": [2000, 3000]}}}
    (project / "results/plans/given/plate/a.json").write_text(json.dumps(plan))
    (batch,) = run.batches
    assert run.mpx(model="given", batch=batch) == [6.0, 0.0]
    assert run.mpx(sample="plate/a") == [0.0]


def test_a_run_begins_without_what_killed_jobs_left(project):
    run = find()
    (batch,) = run.batches
    kept = project / f"results/predictions/given/{Path(batch).parent}/.partial-{Path(batch).name}.zarr.zip"
    left = project / "results/masks/given/plate/.partial-a.ome.tiff"
    for folder in (kept, left):
        folder.mkdir(parents=True)
    run.begin("snakemake --cores 1")
    assert (kept.exists(), left.exists()) == (True, False)
    assert known_samples() == find_samples(run.settings)


@pytest.fixture
def report(project, monkeypatch):
    """A run has begun. The command of the report is recorded instead of run; it ends with ``returncode``."""
    find().begin("snakemake")

    def record(command, **options):
        record.command, record.python_path = command, options["env"]["PYTHONPATH"]
        options["stderr"].write("12:00:00 start\nerror: report: no room [SlidemillError]\n")
        (project / "results" / "metrics.csv").write_text("sample,status,stage,error,log\nplate/a,done,,,\n")
        return subprocess.CompletedProcess(command, record.returncode)

    record.command, record.returncode = None, 0
    monkeypatch.setattr(module.subprocess, "run", record)
    return record


def test_after_a_failure_the_report_is_written_by_the_code_of_the_workflow(report, project, capsys):
    touch(project / "results", "provenance.json")
    print_summary()
    assert capsys.readouterr().err == ""  # there is no report of this run yet
    write_report_after_failure(parse_settings(SETTINGS, source=""), Path("/workflow"))
    assert report.command[:6] == ["python", "-m", "pipeline", "report", "--output", "results"]
    assert report.python_path.split(":")[0] == "/workflow"
    assert not (project / "results" / "provenance.json").exists()
    assert "1 done" in capsys.readouterr().err


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
    write_report_after_failure(parse_settings(SETTINGS, source=""), Path("/workflow"))
    assert message in capsys.readouterr().err
