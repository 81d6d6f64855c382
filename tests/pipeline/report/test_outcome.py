"""Every slide is done, waiting, or failed at a stage; the reason is the first error in the chain of jobs."""

import os
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.errors import SlideError, SlidemillError, Stopped, error_line
from pipeline.project.drop_folder import Sample, write_samples
from pipeline.report.outcome import KILLED, outcomes
from pipeline.settings.schema import Settings

MADE = (paths.MASK, paths.OBJECTS, paths.ANNOTATIONS)
NAMES = {"sample": "a", "model": "unet", "batch": "a"}
DEFECT = "Traceback (most recent call last):\nZeroDivisionError: division by zero\n"
EARLIER = SlidemillError("of an earlier run")


@pytest.fixture(autouse=True)
def _project(in_folder):
    """A project with one slide and everything that its mask is made from."""
    for pattern in ("data/slides/a.tif", paths.NETWORK, paths.PLAN, *MADE):
        put(pattern)
    (in_folder / paths.PLAN.format(**NAMES)).write_text('{"sample": "a", "slide": null, "error": "a.tif: empty"}')
    touch_all("data/slides/a.tif", paths.NETWORK, paths.PLAN, *MADE)


def put(pattern, text=""):
    path = Path(pattern.format(**NAMES))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def fail(stage, error):
    """Write the log of a job that ended with an error."""
    put(paths.LOG[stage], error_line(stage, error))


def remove(*patterns):
    for pattern in patterns:
        Path(pattern.format(**NAMES)).unlink()


def touch_all(*patterns):
    """Date the files one second apart, the first one oldest."""
    for second, pattern in enumerate(patterns, start=1):
        os.utime(pattern.format(**NAMES), (second, second))


def begin_run(**more):
    write_samples({"a": Sample(slide="data/slides/a.tif", **more or {"batch": "a"})}, "snakemake")


def begin_without_mask():
    remove(paths.MASK, paths.PLAN)
    begin_run()


def only(*, check_age=True, **settings):
    (found,) = outcomes(Settings.model_validate({"settle_s": 0.0} | settings), check_age=check_age)
    return found


class TestOutcome:
    def test_a_mask_without_reference_is_done(self):
        assert only().status == "done"

    def test_a_reference_asks_for_metrics(self):
        put("data/references/a.tif")
        assert (only().status, only().error) == ("waiting", "not run yet; the next run takes it")
        fail("evaluate", SlidemillError("disk full"))
        assert (only().status, only().stage) == ("failed", "evaluate")
        put(paths.METRICS)
        assert only().status == "done"
        assert only().metrics

    @pytest.mark.parametrize("pattern", [paths.OBJECTS, paths.ANNOTATIONS])
    def test_a_mask_without_its_objects_failed(self, pattern):
        remove(pattern)
        fail("objects", SlidemillError("disk full"))
        assert (only().status, only().stage, only().error) == ("failed", "objects", "disk full")

    def test_metrics_of_a_reference_that_is_gone_are_not_shown(self):
        put(paths.METRICS)
        assert only().metrics is None

    def test_a_mask_older_than_its_network_is_missing_only_where_ages_are_checked(self):
        touch_all(paths.MASK, paths.PLAN, paths.NETWORK)
        assert only().status == "failed"
        assert only(check_age=False).status == "done"

    def test_a_mask_older_than_its_slide_is_missing(self):
        touch_all(paths.NETWORK, paths.PLAN, *MADE, "data/slides/a.tif")
        assert only().status == "failed"

    def test_a_slide_that_waits_is_not_failed_and_shows_nothing_of_an_earlier_one(self):
        begin_run(waits="still being copied")
        assert (only().status, only().error, only().mask) == ("waiting", "still being copied", None)

    def test_a_slide_that_the_drop_folder_refused_failed_before_all_stages(self):
        begin_run(refused="rename it")
        assert (only().status, only().stage, only().error_class) == ("failed", "drop", "SlideError")

    def test_a_slide_dropped_after_the_run_began_is_not_in_its_report(self):
        begin_run()
        put("data/slides/late.tif")
        assert only().sample == "a"

    @pytest.mark.parametrize(
        ("logs", "reason"),
        [
            ({"predict": DEFECT}, ("predict", "ZeroDivisionError", "a bug in Slidemill: ")),
            ({"predict": Stopped("SIGTERM")}, ("predict", "Stopped", "stopped by SIGTERM")),
            ({"stitch": SlideError("a.tif: empty", stage="tile")}, ("tile", "SlideError", "a.tif: empty")),
            ({"stitch": EARLIER, "train": SlidemillError("is nan")}, ("train", "SlidemillError", "is nan")),
        ],
    )
    def test_the_first_failure_of_the_chain_is_the_reason(self, logs, reason):
        begin_without_mask()
        for stage, error in logs.items():
            put(paths.LOG[stage], "12:00:00 begun\n" + (error if error is DEFECT else error_line(stage, error)))
        stage, error_class, error = reason
        assert (only().stage, only().error_class) == (stage, error_class)
        assert only().error.startswith(error)

    @pytest.mark.parametrize("ensembles", [{}, {"both": {"members": ["unet"]}}])
    def test_the_fold_that_failed_is_the_reason_of_the_model_and_of_an_ensemble_with_it(self, ensembles):
        begin_without_mask()
        put("logs/train/unet/fold1.log", "all is well")
        put("logs/train/unet/fold2.log", error_line("train", SlidemillError("the loss is nan")))
        touch_all("logs/train/unet/fold2.log", "logs/train/unet/fold1.log")
        settings = Settings.model_validate({"settle_s": 0, "models": {"unet": {"folds": 2}}, "ensembles": ensembles})
        for outcome in outcomes(settings, check_age=True):
            assert (outcome.stage, outcome.error) == ("train", "the loss is nan")
            assert outcome.log == Path("logs/train/unet/fold2.log")

    def test_the_log_of_a_training_does_not_concern_a_checkpoint(self):
        begin_without_mask()
        fail("train", SlidemillError("the loss is nan"))
        fail("predict", SlidemillError("no memory"))
        assert only(models={"unet": {"checkpoint": "x/model.safetensors"}}).error == "no memory"

    def test_the_row_of_a_killed_job_has_its_log_and_what_to_do(self):
        begin_without_mask()
        put(paths.LOG["tile"], "12:00:00 all is well")
        put(paths.LOG["predict"], "12:00:00 device cpu")
        assert (only().stage, only().error_class) == ("predict", "")
        assert only().log == Path(paths.LOG["predict"].format(**NAMES))
        assert "probably killed" in only().error
        assert "run the same command again" in only().error

    def test_a_log_of_an_earlier_run_does_not_explain_a_killed_job(self):
        begin_without_mask()
        put(paths.LOG["predict"], "12:00:00 device cpu")
        fail("stitch", EARLIER)
        touch_all(paths.LOG["stitch"], "results/slides.json", paths.LOG["predict"])
        assert (only().stage, only().error) == ("predict", KILLED)

    def test_a_job_that_never_ran_waits_for_the_next_run(self):
        begin_without_mask()
        assert (only().status, only().error) == ("waiting", "not run yet; the next run takes it")

    def test_a_job_that_left_no_error_before_this_run_waits_for_the_next(self):
        begin_without_mask()
        put(paths.LOG["predict"], "12:00:00 device cpu")
        touch_all(paths.LOG["predict"], "results/slides.json")
        assert (only().status, only().log) == ("waiting", None)
        touch_all("results/slides.json", paths.LOG["predict"])
        assert only().stage == "predict"

    def test_a_failure_of_an_earlier_slice_is_kept(self):
        begin_without_mask()
        fail("predict", SlidemillError("no memory"))
        touch_all(paths.LOG["predict"], "results/slides.json")
        assert (only().status, only().error) == ("failed", "no memory")
