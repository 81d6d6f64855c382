"""A run does what changed, and nothing else; times decide nothing."""

import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.errors import Failure
from pipeline.project.drop.drop_folder import find_samples, write_samples
from pipeline.project.jobs.announced import announced
from pipeline.project.jobs.expected import STAGES, Expected
from pipeline.project.jobs.fingerprints import fingerprint, recipe
from pipeline.project.jobs.ledger import Entry, ledger_path, network_ledger_path, read_ledger, write_ledger
from pipeline.project.jobs.network_job import inputs_of_networks, inputs_of_train, inputs_of_validate, inputs_of_weigh
from pipeline.project.jobs.run import Run
from pipeline.project.jobs.todo import FILES
from pipeline.project.stage_settings import network_file, stage_config, start_of
from pipeline.settings.schema import parse_settings
from tests.support.slide_files import touch

SETTINGS = {
    "settle_s": 0,
    "models": {
        "folded": {"folds": 2},
        "given": {"checkpoint": "network/model.safetensors"},
        "next": {"pretrained": "folded"} | {"folds": 2},
    },
    "ensembles": {"both": {"members": ["folded", "given"]}},
}
GIVEN = {"models": {"given": {"checkpoint": "network/model.safetensors"}}, "ensembles": {}}


@pytest.fixture
def project(in_folder):
    """A plate of two, one with a reference, and a slide alone; training images; all networks."""
    touch(in_folder / "data", "slides/plate/a.tif", "slides/plate/b.tif", "slides/c.tif", "references/plate/a.tif")
    touch(in_folder / "data" / "training", *(f"{part}/{name}.tif" for part in ("images", "labels") for name in "1234"))
    touch(in_folder, "network/model.safetensors", "network/model.json")
    (in_folder / "network/model.safetensors").write_bytes(b"given")
    return in_folder


def look(**settings):
    return Run.find(parse_settings(SETTINGS | settings, source=""), is_main=True, on_cluster=False, waits=False)


def todo(**settings):
    """The stages to do, by model and batch."""
    found = {}
    for job in look(**settings).todo.jobs:
        found.setdefault((job.model, job.batch), set()).add(job.stage)
    return found


def do(**settings):
    """Do all jobs, as a run without Snakemake: networks first."""
    run = look(**settings)
    run.begin("snakemake")
    order = ["weigh", "train", "validate", "combine", *STAGES]
    for job in sorted(run.todo.jobs, key=lambda job: (order.index(job.stage), job.model == "both", job.model)):
        if not job.batch:
            do_network_job(run, job)
    expected = Expected(run.settings)
    for job in run.todo.jobs:
        if job.batch:
            do_batch_job(run, job, expected)
    run.end(has_lost_jobs=False)


def do_network_job(run, job):
    files = {
        "train": [paths.NETWORK, paths.CARD, paths.HISTORY],
        "combine": [paths.NETWORK, paths.CARD],
        "validate": [paths.VALIDATION],
    }
    made = [Path(pattern.format(model=job.model)) for pattern in files.get(job.stage, [])]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{job} {run.config(job.stage, job.model)}")
    training = run.training
    held_back = training.held_back.get(job.model, [])
    inputs = {
        "weigh": lambda: inputs_of_weigh(training.pairs),
        "train": lambda: inputs_of_train(training.pairs, held_back, start=start_of(run.settings, job.model)),
        "validate": lambda: inputs_of_validate(held_back, Path(network_file(run.settings, job.model))),
        "combine": lambda: inputs_of_networks([Path(member) for member in run.members(job.model)]),
    }[job.stage]()
    config = stage_config(run.settings, job.stage, job.model)
    wanted, by = fingerprint(job.stage, config, inputs), recipe(job.stage, config)
    with write_ledger(Path(job.ledger), stage=job.stage, model=job.model, recipe=by) as writer:
        writer.record(job.model, Entry(fingerprint=wanted, inputs=inputs, files=[str(path) for path in made]))


def do_batch_job(run, job, expected):
    by = recipe(job.stage, expected.config(job.stage, job.model))
    with write_ledger(Path(job.ledger), stage=job.stage, model=job.model, batch=job.batch, recipe=by) as writer:
        for name in run.batches[job.batch]:
            wanted = expected.of(job.model, run.samples[name]).get(job.stage)
            if wanted:
                patterns = FILES[job.stage] or (paths.PREDICTION,)
                made = [pattern.format(model=job.model, sample=name) for pattern in patterns]
                touch(Path(), *made)
                found = dict.fromkeys(expected.kept(job.model), True)
                inputs = expected.inputs(job.model, run.samples[name])[job.stage]
                writer.record(name, Entry(fingerprint=wanted, inputs=inputs, files=made, found=found))


@pytest.mark.usefixtures("project")
def test_a_new_project_has_everything_to_do_and_a_done_one_nothing():
    found = todo()
    assert found["folded", ""] == {"weigh", "combine"}
    assert found["folded/fold1", ""] == {"train", "validate"}
    assert found["both", ""] == {"combine"}
    assert found["given", "plate/0001"] == set(STAGES)
    assert found["both", "0001"] == set(STAGES) - {"evaluate"}
    do()
    assert todo() == {}
    Path(paths.DONE).unlink()
    assert todo() == {}  # it only saves time


def plate(*stages):
    return {("given", "plate/0001"): set(stages)}


def of_all(*stages, references=("evaluate",)):
    return plate(*stages, *references) | {("given", "0001"): set(stages)}


def write_sheet(text):
    Path("config").mkdir(exist_ok=True)
    Path("config/samples.csv").write_text(text)


def replace(path, time_s):
    """Replace a file by one with another content, and an older or later time."""
    Path(path).write_bytes(Path(path).read_bytes() + b"x")
    os.utime(path, (time_s, time_s))


def fail(stage):
    """Make a sample of the plate fail at a stage."""
    path = ledger_path(stage, "given", "plate/0001")
    known = read_ledger(path)
    with write_ledger(path, stage=stage, model="given", batch="plate/0001") as writer:
        for name, entry in known.items():
            failure = Failure(stage, "SlideError", "empty") if name == "plate/a" else None
            writer.record(
                name, Entry(fingerprint=entry.fingerprint, files=entry.files, found=entry.found, failure=failure)
            )
    Path(paths.DONE).unlink()


MASKS = ("stitch", "objects")
CHANGES = {
    "nothing": (lambda: None, {}, {}),
    "a slide is new": (
        lambda: touch(Path("data/slides"), "plate/new.tif"),
        {},
        {("given", "plate/0002"): set(STAGES[:-1])},
    ),
    "an older slide replaces one": (lambda: replace("data/slides/plate/b.tif", 10**9), {}, plate(*STAGES[:-1])),
    "a slide from the future replaces one": (
        lambda: replace("data/slides/plate/b.tif", time.time() + 10**6),
        {},
        plate(*STAGES[:-1]),
    ),
    "a slide is deleted": (lambda: Path("data/slides/plate/b.tif").unlink(), {}, {}),
    "a reference is new": (lambda: touch(Path("data/references"), "plate/b.tif"), {}, plate("evaluate")),
    "an older reference replaces one": (lambda: replace("data/references/plate/a.tif", 10**9), {}, plate("evaluate")),
    "another folder of references, of the same names, sizes and times": (
        lambda: shutil.copytree("data/references", "data/corrected"),
        {"references": "data/corrected"},
        plate("evaluate"),
    ),
    "another drop folder, of the same names, sizes and times": (
        lambda: shutil.copytree("data/slides", "data/other"),
        {"slides": "data/other"},
        of_all(*STAGES[:-1]),
    ),
    "a reference is deleted": (lambda: Path("data/references/plate/a.tif").unlink(), {}, {}),
    "another metric option": (lambda: None, {"metrics": {"tolerance_px": 9.0}}, plate("evaluate")),
    "another mask option": (lambda: None, {"masks": {"instances": "none"}}, of_all(*MASKS)),
    "another tile size": (lambda: None, {"tiling": {"tile_px": 64}}, of_all(*STAGES[:-1])),
    "another budget": (lambda: None, {"tiling": {"memory_mb": 3000}}, {}),
    "probabilities that are not there": (
        lambda: None,
        {"masks": {"instances": "watershed"}},
        of_all("predict", *MASKS),
    ),
    "a checkpoint is replaced": (lambda: replace("network/model.safetensors", 10**9), {}, of_all("predict", *MASKS)),
    "a checkpoint is touched": (lambda: os.utime("network/model.safetensors"), {}, {}),
    "a group in the sheet": (lambda: write_sheet("sample,group\nc,mouse\n"), {}, {}),
    "a batch in the sheet": (lambda: write_sheet("sample,batch\nc,night\n"), {}, {}),
    "a pixel size in the sheet": (
        lambda: write_sheet("sample,pixel_size_um\nplate/a,0.5\n"),
        {},
        plate(*(stage for stage in STAGES if stage != "predict")),
    ),
    "a pixel size for files that have none": (
        lambda: None,
        {"image": {"fallback_pixel_size_um": 0.5}},
        of_all("tile", *MASKS),
    ),
    "channels in the sheet": (lambda: write_sheet("sample,channels\nplate/a,1\n"), {}, plate(*STAGES)),
    "pixels of another size": (lambda: None, {"image": {"pixel_size_um": 0.5}}, of_all(*STAGES[:-1])),
    "a mask is deleted": (
        lambda: Path(paths.MASK.format(model="given", sample="c")).unlink(),
        {},
        {("given", "0001"): {"stitch"}},
    ),
    "a mask is overwritten by hand": (
        lambda: Path(paths.MASK.format(model="given", sample="c")).write_text("junk"),
        {},
        {("given", "0001"): {"stitch"}},
    ),
    "a mask is overwritten by an older one of the same size": (
        lambda: os.utime(paths.MASK.format(model="given", sample="c"), (10**9, 10**9)),
        {},
        {("given", "0001"): {"stitch"}},
    ),
    "a prediction is overwritten": (
        lambda: Path(paths.PREDICTION.format(model="given", sample="c")).write_text("junk"),
        {},
        {},
    ),
    "an outline is deleted": (
        lambda: Path(paths.ANNOTATIONS.format(model="given", sample="plate/b")).unlink(),
        {},
        plate("objects"),
    ),
    "predictions are deleted": (lambda: Path(paths.PREDICTION.format(model="given", sample="c")).unlink(), {}, {}),
    "a sample failed": (lambda: fail("stitch"), {}, plate("stitch")),
    "the list of slides is lost": (lambda: Path(paths.SLIDES).unlink(), {"batches": {"samples": 1}}, {}),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_the_jobs_that_it_must(change):
    do(**GIVEN)
    act, settings, jobs = CHANGES[change]
    act()
    assert todo(**GIVEN | settings) == jobs
    if Path(paths.DONE).exists():
        Path(paths.DONE).unlink()
        assert todo(**GIVEN | settings) == jobs


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("junk")], ids=["deleted", "overwritten"])
def test_a_changed_prediction_is_made_again_when_a_mask_needs_it(change):
    do(**GIVEN)
    change(Path(paths.PREDICTION.format(model="given", sample="c")))
    found = todo(**GIVEN, masks={"instances": "none"})
    assert found == of_all(*MASKS) | {("given", "0001"): {"predict", *MASKS}}


NETWORK_CHANGES = {
    "a learning rate": (
        lambda: None,
        {"models": SETTINGS["models"] | {"next": {"pretrained": "folded", "folds": 2, "learning_rate": 0.5}}},
        {"next"},
        {"next/fold1", "next/fold2"},
    ),
    "of what another starts from": (
        lambda: None,
        {"models": SETTINGS["models"] | {"folded": {"folds": 2, "learning_rate": 0.5}}},
        {"folded", "next", "both"},
        {"folded/fold1", "folded/fold2", "next/fold1", "next/fold2"},
    ),
    "older labels": (
        lambda: replace("data/training/labels/1.tif", 10**9),
        {},
        {"folded", "next", "both"},
        {"folded/fold1", "folded/fold2", "next/fold1", "next/fold2"},
    ),
    "labels from the future": (
        lambda: replace("data/training/labels/1.tif", time.time() + 10**6),
        {},
        {"folded", "next", "both"},
        {"folded/fold1", "folded/fold2", "next/fold1", "next/fold2"},
    ),
    "an image of the same size": (
        lambda: os.utime("data/training/images/1.tif", (10**9, 10**9)),
        {},
        {"folded", "next", "both"},
        {"folded/fold1", "folded/fold2", "next/fold1", "next/fold2"},
    ),
    "another folder of labels, of the same names, sizes and times": (
        lambda: shutil.copytree("data/training/labels", "data/training/corrected"),
        {"training": {"labels": "data/training/corrected"}},
        {"folded", "next", "both"},
        {"folded/fold1", "folded/fold2", "next/fold1", "next/fold2"},
    ),
    "a member of the same size replaces one": (
        lambda: Path("network/model.safetensors").write_bytes(b"other"),
        {},
        {"both"},
        set(),
    ),
    "another network in the place of one": (
        lambda: replace(paths.NETWORK.format(model="folded/fold1"), 10**9),
        {},
        {"folded", "next", "both"},
        {"folded/fold1", "next/fold1"},
    ),
    "a new slide": (lambda: touch(Path("data/slides"), "new.tif"), {}, set(), set()),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("change", NETWORK_CHANGES)
def test_a_network_is_trained_again_only_for_its_own_changes(change):
    do()
    act, settings, models, trainings = NETWORK_CHANGES[change]
    act()
    found = todo(**settings)
    assert {model for model, batch in found if not batch and "/" not in model} == models
    assert {model for (model, _), stages in found.items() if "train" in stages} == trainings
    remade = models | ({"given"} if change.startswith("a member") else set())
    assert {model for (model, batch), stages in found.items() if batch and stages >= set(MASKS)} == (
        remade or {"folded", "given", "next", "both"}
    )


@pytest.mark.usefixtures("project")
def test_weight_maps_are_made_again_only_for_a_training():
    do()
    network_ledger_path("weigh", "folded").unlink()
    assert todo() == {}


@pytest.mark.usefixtures("project")
def test_what_a_run_looked_at_costs_the_next_one_no_ledger(monkeypatch):
    do(**GIVEN)
    monkeypatch.setattr("pipeline.project.jobs.todo.read_ledger", lambda path: pytest.fail(f"{path} is read"))
    assert todo(**GIVEN) == {}
    write_samples(find_samples(parse_settings(SETTINGS | GIVEN, source="")), "", "")
    assert todo(**GIVEN) == {}


NET = {"models": {"net": {"max_steps": 60}}, "ensembles": {}}
WHY = {
    "nothing": (lambda: None, {}, []),
    "a longer training": (
        lambda: None,
        {"models": {"net": {"max_steps": 90}}},
        ["train net again: max_steps 60 -> 90 (about 28 s)", "segment 3 samples with net"],
    ),
    "a label": (
        lambda: replace("data/training/labels/2.tif", 10**9),
        {},
        ["train net again: label data/training/labels/2.tif changed (about 22 s)", "segment 3 samples with net"],
    ),
    "an image more": (
        lambda: touch(Path("data/training"), "images/5.tif", "labels/5.tif"),
        {},
        [
            "train net again: held back 4 -> 5, image data/training/images/5.tif is new, "
            "label data/training/labels/5.tif is new (about 22 s)",
            "segment 3 samples with net",
        ],
    ),
    "other classes": (
        lambda: None,
        {"classes": ["background", "cell"]},
        [
            'train net again: classes ["background", "object"] -> ["background", "cell"] (about 22 s)',
            "segment 3 samples with net",
        ],
    ),
    "masks": (
        lambda: None,
        {"masks": {"instances": "none"}},
        ['make the masks of 3 samples with net again: masks.instances "components" -> "none"'],
    ),
    "metrics": (
        lambda: None,
        {"metrics": {"tolerance_px": 3.0}},
        ["evaluate 1 sample with net again: metrics.tolerance_px 2.0 -> 3.0"],
    ),
    "a slide that is new, and one that changed": (
        lambda: (touch(Path("data/slides"), "plate/new.tif"), replace("data/slides/c.tif", 10**9)),
        {},
        ["segment 1 sample with net", "segment 1 sample with net again: slide changed"],
    ),
    "a reference": (
        lambda: replace("data/references/plate/a.tif", 10**9),
        {},
        ["evaluate 1 sample with net again: reference changed"],
    ),
    "a network": (
        lambda: Path(paths.NETWORK.format(model="net")).unlink(),
        {},
        ["train net again: a file of it is missing or was changed (about 22 s)", "segment 3 samples with net"],
    ),
    "a mask": (
        lambda: Path(paths.MASK.format(model="net", sample="c")).unlink(),
        {},
        ["make the masks of 1 sample with net again: a file of it is missing or was changed"],
    ),
    "masks that need probabilities": (
        lambda: None,
        {"masks": {"instances": "watershed"}},
        [
            "predict 3 samples with net again: masks.instances or prediction.probabilities now needs probabilities, "
            "which were not kept"
        ],
    ),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("change", WHY)
def test_a_run_says_why_it_makes_something_again(change):
    do(**NET)
    act, settings, lines = WHY[change]
    act()
    found = announced(look(**NET | settings))
    assert [line.strip() for line in found[1:]] == lines
    assert not found or "to do" in found[0]


@pytest.mark.usefixtures("project")
def test_a_new_project_says_what_it_will_make():
    lines = announced(look(**NET))
    assert lines[0].startswith("3 samples, network net: 11 jobs to do, of 2 batches; about ")
    assert lines[1:] == ["  train net (about 22 s)", "  segment 3 samples with net"]


@pytest.mark.usefixtures("project")
def test_a_pixel_size_that_changes_no_pixel_trains_nothing():
    do(**NET)
    stated = {"image": {"fallback_pixel_size_um": 0.5}}
    assert todo(**NET | stated) == {
        ("net", "plate/0001"): {"tile", *MASKS, "evaluate"},
        ("net", "0001"): {"tile", *MASKS},
    }
    do(**NET | stated)
    resampled = {"image": {"fallback_pixel_size_um": 0.5, "pixel_size_um": 1.0}}
    assert ("net", "") in todo(**NET | resampled)
    do(**NET | resampled)
    other = {"image": {"fallback_pixel_size_um": 0.6, "pixel_size_um": 1.0}}
    assert "train" in todo(**NET | other)["net", ""]
    assert "predict" in todo(**NET | other)["net", "0001"]
