"""A run does what changed, and nothing else; times decide nothing."""

import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.errors import Failure
from pipeline.project.drop.drop_folder import find_samples, write_samples
from pipeline.project.jobs.expected import STAGES
from pipeline.project.jobs.ledger import Entry, ledger_path, network_ledger_path, read_ledger, write_ledger
from pipeline.settings.schema import parse_settings
from tests.support.pretended_run import NET, SETTINGS, do, lay_out, look, replace, todo
from tests.support.slide_files import touch

GIVEN = {"models": {"given": {"checkpoint": "network/model.safetensors"}}, "ensembles": {}}


@pytest.fixture(autouse=True)
def project(in_folder):
    lay_out(in_folder)


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


def test_each_job_has_a_number_of_samples_to_make():
    do(**GIVEN)
    replace("data/slides/plate/b.tif", 10**9)
    assert {job.stage: size for job, size in look(**GIVEN).todo.sizes.items()} == dict.fromkeys(STAGES[:-1], 1)
    replace("data/slides/plate/a.tif", 10**9)
    both = {job.stage: size for job, size in look(**GIVEN).todo.sizes.items()}
    assert both == dict.fromkeys(STAGES, 2) | {"evaluate": 1}


def plate(*stages):
    return {("given", "plate/0001"): set(stages)}


def of_all(*stages, references=("evaluate",)):
    return plate(*stages, *references) | {("given", "0001"): set(stages)}


def write_sheet(text):
    Path("config").mkdir(exist_ok=True)
    Path("config/samples.csv").write_text(text)


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
    "regions are drawn": (lambda: touch(Path("data/regions"), "plate/b.geojson"), {}, plate("objects")),
    "regions are drawn, and nothing is computed outside": (
        lambda: touch(Path("data/regions"), "plate/b.geojson"),
        {"regions": {"compute": "inside"}},
        plate(*STAGES[:-1]),
    ),
    "nothing is computed outside of regions, and there are none": (
        lambda: None,
        {"regions": {"compute": "inside"}},
        {},
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


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_the_jobs_that_it_must(change):
    do(**GIVEN)
    act, settings, jobs = CHANGES[change]
    act()
    assert todo(**GIVEN | settings) == jobs
    if Path(paths.DONE).exists():
        Path(paths.DONE).unlink()
        assert todo(**GIVEN | settings) == jobs


@pytest.mark.parametrize(("compute", "stages"), [("everywhere", ("objects",)), ("inside", STAGES)])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: replace(path, 10**9)], ids=["deleted", "replaced"])
def test_other_regions_make_again_what_depends_on_them(compute, stages, change):
    path = Path("data/regions/plate/a.geojson")
    touch(Path(), str(path))
    do(**GIVEN, regions={"compute": compute})
    assert todo(**GIVEN, regions={"compute": compute}) == {}
    change(path)
    assert todo(**GIVEN, regions={"compute": compute}) == plate(*stages)


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


def test_networks_that_were_compared_with_random_fields_serve_without_them():
    """And again with them: no network job runs when `masks.crf: auto` is turned off and on."""

    def of_networks(**settings):
        return {model: stages for (model, batch), stages in todo(**settings).items() if not batch}

    with_fields = {"masks": {"crf": "auto"}}
    do()
    assert of_networks(**with_fields)["folded/fold1"] == {"train", "validate"}
    do(**with_fields)
    assert of_networks() == of_networks(**with_fields) == {}


def test_weight_maps_are_made_again_only_for_a_training():
    do()
    network_ledger_path("weigh", "folded").unlink()
    assert todo() == {}


def test_what_a_run_looked_at_costs_the_next_one_no_ledger(monkeypatch):
    do(**GIVEN)
    monkeypatch.setattr("pipeline.project.jobs.todo.read_ledger", lambda path: pytest.fail(f"{path} is read"))
    assert todo(**GIVEN) == {}
    write_samples(find_samples(parse_settings(SETTINGS | GIVEN, source="")), "", "")
    assert todo(**GIVEN) == {}


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
