"""Progress tells how long a run will still take, whatever the machine."""

import math
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.files import unfinished
from pipeline.project.jobs.expected import STAGES
from pipeline.project.jobs.progress import REPORT, Progress, expected_seconds
from pipeline.project.jobs.todo import Job
from tests.support.runs import find_run

# Of a plate on two cores: of each job, and of each sample
SECONDS = {"tile": (2, 0.03), "predict": (4, 0.13), "stitch": (2, 0.03), "objects": (2, 0.06), "evaluate": (2, 0.07)}


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def write_journal(job, count):
    journal = unfinished(Path(job.ledger)).with_suffix(".jsonl")
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("{}\n" * count)


def moments(run, progress, clock, factor):
    """Go through a run of one job at a time; yield after every sample."""
    for batch in run.batches:
        for stage, (start_s, sample_s) in SECONDS.items():
            job = Job(stage, "unet", batch)
            progress.begin(job)
            clock.now += factor * start_s
            for count in range(len(run.batches[batch])):
                clock.now += factor * sample_s
                write_journal(job, count + 1)
                yield
            progress.end(job)
    progress.begin(REPORT)
    clock.now += factor * 4
    progress.end(REPORT)
    yield


@pytest.mark.parametrize("factor", [0.2, 1, 7])
@pytest.mark.parametrize(("batches", "samples"), [(1, 100), (5, 20)])
def test_the_time_left_is_known_within_30_percent_after_a_fifth_of_a_run(in_folder, batches, samples, factor):
    run = find_run(in_folder, batches=batches, samples=samples)
    clock = Clock()
    progress = Progress(run, clock)
    start = clock.now
    said = [(clock.now, progress.look()) for _ in moments(run, progress, clock, factor)]
    whole_s = clock.now - start
    after_a_fifth = [(now, seen) for now, seen in said[:-1] if now - start >= 0.2 * whole_s]
    for now, seen in after_a_fifth[: len(after_a_fifth) // 2]:
        assert abs(seen.left_s - (start + whole_s - now)) < 0.3 * (start + whole_s - now)
    assert said[-1][1].share == pytest.approx(1)
    assert said[-1][1].left_s == pytest.approx(0)


def test_samples_are_counted_by_stage_over_all_networks_and_jobs(in_folder):
    run = find_run(in_folder, batches=2, samples=3, models={name: {"checkpoint": "x"} for name in ("a", "b")})
    progress = Progress(run, Clock())
    assert math.isnan(progress.look().left_s)
    for model in ("a", "b"):
        job = Job("tile", model, "plate0/0001")
        progress.begin(job)
        write_journal(job, 2)
    progress.end(Job("tile", "a", "plate0/0001"))
    seen = progress.look()
    assert seen.samples == {"tile": 5}
    assert seen.running == [Job("tile", "b", "plate0/0001")]


def test_a_random_field_takes_time_by_its_pixels_and_pairs(in_folder):
    """By hand: 3 slides of 60 kB are at most 0.72 Mpx; 3.14 / 2 * 5² * 5 pairs for each pixel, 10 ns for each pair."""
    plain, field, large = (
        find_run(in_folder, batches=1, samples=3, masks={"crf": crf}) for crf in (None, {}, {"radius_px": 10})
    )
    before = {stage: expected_seconds(plain, Job(stage, "unet", "plate0/0001")) for stage in STAGES}
    with_field = {stage: expected_seconds(field, Job(stage, "unet", "plate0/0001")) for stage in STAGES}
    assert with_field == before | {"stitch": pytest.approx(before["stitch"] + 0.72 * 1.963, rel=1e-3)}
    more = expected_seconds(large, Job("stitch", "unet", "plate0/0001")) - before["stitch"]
    assert more == pytest.approx(4 * 0.72 * 1.963, rel=1e-3)


def test_a_training_takes_as_long_as_its_history_says(in_folder):
    for kind in ("images", "labels"):
        for name in "ab":
            path = in_folder / "data" / "training" / kind / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b".")
    run = find_run(in_folder, batches=1, samples=1, models={"unet": {"max_steps": 1000, "max_minutes": 1000.0}})
    clock = Clock()
    progress = Progress(run, clock)
    progress.begin(Job("train", "unet"))
    clock.now += 60
    before = progress.look().left_s
    history = Path(paths.TRAINING.format(model="unet"), "history.csv")
    history.parent.mkdir(parents=True)
    history.write_text("step,elapsed_s,loss\n100,30.0,1\n200,60.0,0.9\n")
    seen = progress.look()
    assert math.isnan(before)
    assert 240 < seen.left_s < 280  # 240 s of training, and the jobs after it
