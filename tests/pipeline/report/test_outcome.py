"""Every slide is done, waiting, or failed at a stage, as the ledgers of this slide, network and settings say."""

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base import paths
from pipeline.base.errors import Failure
from pipeline.project.drop.drop_folder import Sample, write_samples
from pipeline.project.jobs.expected import STAGES, Expected
from pipeline.project.jobs.ledger import Entry, ledger_path, write_ledger
from pipeline.report.outcome import KILLED, STOPPED, outcomes
from pipeline.settings.schema import Settings

SAMPLE = Sample(slide="data/slides/a.tif", version="1 bytes, 1 ns", batch="plate/1")
WITH_REFERENCE = replace(SAMPLE, reference="data/references/a.tif", reference_version="2 bytes, 2 ns")
FOUND = {
    "tile": {"pixels": 9},
    "predict": {"uncertain": 0.1},
    "stitch": {"mask_sha256": "abc"},
    "objects": {"objects": 3},
    "evaluate": {"metrics": {"dice_mean": 0.5}},
}
NOT_YET = "not run yet; the next run takes it"


@pytest.fixture(autouse=True)
def _project(in_folder):
    """A project with one slide, which a run found, and its network."""
    begin_run()
    network = in_folder / paths.NETWORK.format(model="unet")
    network.parent.mkdir(parents=True)
    network.write_bytes(b"weights")


def begin_run(**samples):
    write_samples(samples or {"a": SAMPLE}, "snakemake", "")


def settings_of(**more):
    return Settings.model_validate({"settle_s": 0.0} | more)


def record(stage, *, sample=SAMPLE, failure=None, **more):
    """Write the ledger of a stage with one sample as this version, or ``more`` settings, made it."""
    fingerprint = Expected(settings_of(**more)).of("unet", sample)[stage]
    entry = Entry(fingerprint=fingerprint, found={} if failure else FOUND[stage], failure=failure)
    with write_ledger(
        ledger_path(stage, "unet", sample.batch), stage=stage, model="unet", batch=sample.batch
    ) as writer:
        writer.record("a", entry)


def record_all(sample=SAMPLE, **more):
    for stage in Expected(settings_of()).of("unet", sample):
        record(stage, sample=sample, **more)


def record_network(stage, model="unet", **entry):
    path = Path(paths.NETWORK_LEDGER.format(stage=stage, model=model))
    with write_ledger(path, stage=stage, model=model, batch="") as writer:
        writer.record(model, Entry(fingerprint="of the training", **entry))


def test_the_samples_of_a_job_of_the_run_that_did_not_end_say_so():
    record("tile")
    assert only().error == NOT_YET
    write_samples({"a": SAMPLE}, "snakemake", "", [str(ledger_path("predict", "unet", "plate/1"))])
    assert (only().status, only().stage, only().error) == ("failed", "predict", KILLED)
    assert only().log == "logs/predict/unet/plate/1.log"


def kill(path):
    """Leave what a killed job leaves."""
    with suppress(KeyboardInterrupt), write_ledger(path, stage="x", model="unet", batch="x"):
        raise KeyboardInterrupt


def only(**more):
    (found,) = outcomes(settings_of(**more))
    return found


class TestStages:
    def test_a_slide_without_reference_is_done_by_its_mask_and_objects(self):
        record_all()
        found = only()
        assert (found.status, found.error, found.reference, found.metrics) == ("done", "", None, None)
        assert found.mask == "results/masks/unet/a.ome.tiff"
        assert found.objects_table
        assert found.annotations
        assert found.found == {stage: FOUND[stage] for stage in STAGES if stage != "evaluate"}

    def test_a_reference_asks_for_metrics(self):
        begin_run(a=WITH_REFERENCE)
        record_all()
        assert (only().status, only().error) == ("waiting", NOT_YET)
        record("evaluate", sample=WITH_REFERENCE)
        assert only().status == "done"
        assert only().metrics == "results/metrics/unet/a.csv"
        assert only().found["evaluate"] == FOUND["evaluate"]

    def test_metrics_of_a_reference_that_is_gone_are_not_shown(self):
        record_all(WITH_REFERENCE)
        begin_run(a=replace(SAMPLE, reference=None))
        assert (only().status, only().metrics) == ("done", None)
        assert "evaluate" not in only().found

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_failure_keeps_what_the_stages_before_made(self, stage):
        begin_run(a=WITH_REFERENCE)
        record_all(WITH_REFERENCE)
        failure = Failure(stage, "SlideError", "a.tif: cut short", "logs/x.log")
        for number, name in enumerate(STAGES):
            if name == stage:
                record(name, sample=WITH_REFERENCE, failure=failure)
            elif number > STAGES.index(stage) and stage != "objects":
                ledger_path(name, "unet", SAMPLE.batch).unlink()
        found = only()
        assert (found.status, found.stage, found.error_class, found.error, found.log) == ("failed", *failure)
        assert (found.mask is not None) is (stage in ("objects", "evaluate"))
        assert (found.metrics is not None) is (stage == "objects")
        assert (found.objects_table is not None) is (stage == "evaluate")

    def test_the_first_failure_is_the_reason(self):
        begin_run(a=WITH_REFERENCE)
        record_all(WITH_REFERENCE)
        for stage in ("objects", "evaluate"):
            record(stage, sample=WITH_REFERENCE, failure=Failure(stage, "SlideError", stage))
        assert only().stage == "objects"

    def test_a_failure_is_known_before_the_stages_beside_it_ran(self):
        begin_run(a=WITH_REFERENCE)
        record_all()
        ledger_path("objects", "unet", SAMPLE.batch).unlink()
        record("evaluate", sample=WITH_REFERENCE, failure=Failure("evaluate", "SlideError", "bad reference"))
        assert (only().status, only().error) == ("failed", "bad reference")


class TestFingerprints:
    @pytest.mark.parametrize("failure", [None, Failure("tile", "SlideError", "of an earlier run")])
    def test_a_ledger_of_other_settings_counts_as_not_run(self, failure):
        record_all()
        record("tile", failure=failure, tiling={"tile_px": 512})
        assert (only().status, only().error, only().stage) == ("waiting", NOT_YET, "")

    def test_the_results_of_a_replaced_slide_are_not_shown(self):
        record_all()
        begin_run(a=replace(SAMPLE, version="2 bytes, 2 ns"))
        assert (only().status, only().mask, only().found) == ("waiting", None, {})

    def test_the_results_of_another_network_are_not_shown(self):
        record_all()
        Path(paths.NETWORK.format(model="unet")).write_bytes(b"trained again")
        assert (only().status, only().mask) == ("waiting", None)
        assert list(only().found) == ["tile"]  # it depends on the card only

    def test_times_of_files_do_not_matter(self):
        record_all()
        for path in (*Path("results").rglob("*.json"), Path(paths.NETWORK.format(model="unet"))):
            os.utime(path, (1, 1) if "predict" in path.parts else None)
        assert only().status == "done"

    def test_a_ledger_that_cannot_be_read_counts_as_not_run(self):
        record_all()
        ledger_path("stitch", "unet", SAMPLE.batch).write_text('{"samples": {"a": 1}}')
        assert (only().status, only().error) == ("waiting", NOT_YET)


class TestKilled:
    def test_the_samples_of_a_killed_job_say_so_with_its_log_and_what_to_do(self):
        record("tile")
        kill(ledger_path("predict", "unet", SAMPLE.batch))
        assert (only().status, only().stage, only().error_class, only().error) == ("failed", "predict", "", KILLED)
        assert only().log == "logs/predict/unet/plate/1.log"
        assert "run the same command again" in only().error

    def test_a_job_that_was_killed_after_a_sample_was_done_does_not_concern_it(self):
        record_all()
        kill(ledger_path("predict", "unet", SAMPLE.batch))
        assert only().status == "done"

    def test_a_job_whose_turn_has_not_come_was_killed_in_an_earlier_run(self):
        kill(ledger_path("stitch", "unet", SAMPLE.batch))
        assert (only().status, only().error) == ("waiting", NOT_YET)

    def test_a_sample_of_a_run_that_its_user_stopped_waits(self):
        record("tile")
        lost = [str(ledger_path("predict", "unet", SAMPLE.batch))]
        write_samples({"a": SAMPLE}, "snakemake", "", lost, stopped=True)
        assert (only().status, only().error) == ("waiting", STOPPED)

    def test_a_killed_training_concerns_all_samples(self):
        kill(Path(paths.NETWORK_LEDGER.format(stage="train", model="unet")))
        assert (only().stage, only().error, only().log) == ("train", KILLED, "logs/train/unet.log")


class TestNetwork:
    def test_without_a_network_all_samples_wait(self):
        record_all()
        Path(paths.NETWORK.format(model="unet")).unlink()
        assert (only().status, only().error) == ("waiting", NOT_YET)

    @pytest.mark.parametrize("stage", ["weigh", "train"])
    def test_a_network_that_could_not_be_made_is_the_failure_of_every_sample(self, stage):
        record_all()
        begin_run(a=SAMPLE, b=replace(SAMPLE, slide="data/slides/b.tif"))
        failure = Failure(stage, "SlidemillError", "the loss is nan", f"logs/{stage}/unet.log")
        record_network(stage, failure=failure)
        for found in outcomes(settings_of()):
            assert (found.stage, found.error_class, found.error, found.log) == failure
            assert (found.mask, found.metrics, found.found) == (None, None, {})  # those of the old network

    @pytest.mark.parametrize("ensembles", [{}, {"both": {"members": ["unet"]}}])
    def test_the_fold_that_failed_is_the_reason_of_the_model_and_of_an_ensemble_with_it(self, ensembles):
        record_network("train", "unet/fold1")
        record_network("train", "unet/fold2", failure=Failure("train", "SlidemillError", "the loss is nan"))
        for found in outcomes(settings_of(models={"unet": {"folds": 2}}, ensembles=ensembles)):
            assert (found.stage, found.error) == ("train", "the loss is nan")

    def test_the_network_that_another_starts_from_is_the_reason(self):
        record_network("train", "first", failure=Failure("train", "SlidemillError", "the loss is nan"))
        first, second = outcomes(settings_of(models={"first": {}, "second": {"pretrained": "first"}}))
        assert first.error == second.error == "the loss is nan"

    def test_a_training_does_not_concern_a_checkpoint(self):
        record_network("train", failure=Failure("train", "SlidemillError", "the loss is nan"))
        Path("x.safetensors").write_bytes(b"weights")
        assert only(models={"unet": {"checkpoint": "x.safetensors"}}).error == NOT_YET


class TestDropFolder:
    def test_a_slide_that_waits_is_not_failed_and_shows_nothing_of_an_earlier_one(self):
        record_all()
        begin_run(a=replace(SAMPLE, waits="still being copied"))
        assert (only().status, only().error, only().mask) == ("waiting", "still being copied", None)

    def test_a_slide_that_the_drop_folder_refused_failed_before_all_stages(self):
        begin_run(a=replace(SAMPLE, refused="rename it"))
        assert (only().status, only().stage, only().error_class) == ("failed", "drop", "SlideError")

    def test_a_slide_dropped_after_the_run_began_is_not_in_its_report(self):
        Path("data/slides").mkdir(parents=True)
        Path("data/slides/late.tif").touch()
        assert only().sample == "a"


STATES = st.lists(st.sampled_from(["done", "failed", "old", "missing"]), min_size=5, max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(states=st.lists(STATES, min_size=1, max_size=6), data=st.data())
def test_neither_order_nor_batches_matter(states, data):
    """Any ledgers, against the rule: the first failure, else waiting if a stage is not done."""
    names = [f"s{number}" for number in range(len(states))]
    batches = data.draw(st.lists(st.sampled_from(["one", "two"]), min_size=len(names), max_size=len(names)))
    samples = {name: replace(WITH_REFERENCE, batch=batch) for name, batch in zip(names, batches, strict=True)}
    begin_run(**samples)
    wanted = Expected(settings_of()).of("unet", WITH_REFERENCE)
    for number, stage in enumerate(STAGES):
        for batch in ("one", "two"):
            entries = {
                name: Entry(
                    fingerprint="old" if state[number] == "old" else wanted[stage],
                    failure=Failure(stage, "SlideError", name) if state[number] == "failed" else None,
                ).to_dict()
                for name, state in data.draw(st.permutations(list(zip(names, states, strict=True))))
                if samples[name].batch == batch and state[number] != "missing"
            }
            path = ledger_path(stage, "unet", batch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"samples": entries}))
    found = outcomes(settings_of())
    assert [outcome.sample for outcome in found] == names
    for outcome, state in zip(found, states, strict=True):
        expected = "failed" if "failed" in state else "done" if set(state) == {"done"} else "waiting"
        assert outcome.status == expected
        assert outcome.stage == (STAGES[state.index("failed")] if expected == "failed" else "")
        assert list(outcome.found) == [stage for stage, one in zip(STAGES, state, strict=True) if one == "done"]
