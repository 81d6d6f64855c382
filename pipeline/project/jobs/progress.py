"""How far a run is and how long it will still take, by what its jobs have recorded so far."""

from __future__ import annotations

import csv
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.base import paths
from pipeline.project.jobs.ledger import samples_recorded
from pipeline.project.jobs.order import Job
from pipeline.project.jobs.run import Run

REPORT = Job("report", "")

# Seconds on two cores of today: of a job, of each sample, of each Mpx. The run itself soon shows how far they are off.
_JOB_S = {"train": 10.0, "combine": 5.0, "predict": 5.0, "report": 4.0}
_OTHER_JOB_S = 2.0
_SAMPLE_S = {"tile": 0.02, "predict": 0.05, "stitch": 0.02, "objects": 0.04, "evaluate": 0.05, "report": 0.001}
_MPX_S = {
    "weigh": 1.0,
    "tile": 0.02,
    "predict": 0.5,
    "validate": 0.5,
    "combine": 0.5,
    "stitch": 0.02,
    "objects": 0.1,
    "evaluate": 0.1,
}
_STEP_S = 0.2
_PAIR_S = 1e-8  # of pixels, in an iteration of a random field (docs/random-field.md)


class Seen(NamedTuple):
    """How a run stands.

    Attributes
    ----------
    share : float
        Of its work that is done, 0 to 1.
    left_s : float
        Seconds until all is done; NaN until its speed is known.
    running : list of Job
        In the order in which they began.
    samples : dict of int
        How many samples each stage has made, in this run, over all networks.
    """

    share: float
    left_s: float
    running: list[Job]
    samples: dict[str, int]


class Progress:
    """Watches the jobs of a run.

    The work of a job is expected by its pixels. Once jobs of its stage have recorded samples, their pace is taken, and
    that of its own samples while it runs. Jobs that run side by side are supposed to go on so.

    Parameters
    ----------
    run : Run
        What it has to do.
    clock : callable
        Returns seconds, as the times of files.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.time) -> None:
        self._run = run
        self._clock = clock
        self._start = clock()
        self.planned = run.todo.jobs
        self._expected = {job: expected_seconds(run, job) for job in [*self.planned, REPORT]}
        self._begun: dict[Job, float] = {}
        self._took: dict[Job, float] = {}
        self._first: dict[Job, tuple[float, float]] = {}  # when samples of a job were seen first, and how many

    def begin(self, job: Job) -> None:
        """Note that a job begins."""
        self._begun[job] = self._clock()
        self._expected.setdefault(job, expected_seconds(self._run, job))

    def end(self, job: Job) -> float:
        """Note that a job has ended, and return the seconds that it took."""
        now = self._clock()
        self._took[job] = now - self._begun.pop(job, now)
        return self._took[job]

    def size(self, job: Job) -> int:
        """Return the number of samples that a job has to make; 0 if it is not one of a batch."""
        return self._run.todo.sizes.get(job, 0)

    def look(self) -> Seen:
        """Look at what the running jobs have recorded."""
        now = self._clock()
        spent = {job: now - since for job, since in self._begun.items()} | self._took
        share = {job: self._share(job) for job in self._begun} | dict.fromkeys(self._took, 1.0)
        paces = self._paces(spent, share)
        left = 0.0
        for job, expected_s in self._expected.items():
            pace = 1.0 if job.stage == "train" else paces.get(job.stage, paces.get("", 1.0))
            part = share.get(job, 0.0)
            first_at, first_part = self._first.setdefault(job, (now, part)) if part else (now, 0.0)
            if part > first_part:
                left += (now - first_at) / (part - first_part) * (1 - part)
            elif part:
                left += pace * (expected_s - self._expected_until(job, part))
            else:  # nothing is known of it but for how long it has been running
                left += max(pace * expected_s - spent.get(job, 0.0), 0.1 * pace * expected_s)
        done = sum(spent.values())
        side_by_side = done / max(now - self._start, 1e-9)
        samples: Counter[str] = Counter()
        for job, part in share.items():
            samples[job.stage] += round(part * self.size(job))
        return Seen(
            share=done / max(done + left, 1e-9),
            left_s=left / side_by_side if any(share.values()) and done else math.nan,
            running=list(self._begun),
            samples=dict(samples),
        )

    def _paces(self, spent: dict[Job, float], share: dict[Job, float]) -> dict[str, float]:
        """Return by stage how many times as long as expected its jobs take; under "" that of all without a network.

        Networks are slow or fast, whatever the machine. Training has no pace: its history says how long it takes.
        """
        took: dict[str, float] = defaultdict(float)
        expected: dict[str, float] = defaultdict(float)
        for job, part in share.items():
            counted = {"train": (), "predict": ("predict",)}.get(job.stage, (job.stage, ""))
            for stage in counted if part else ():
                took[stage] += spent[job]
                expected[stage] += self._expected_until(job, part)
        return {stage: took[stage] / expected[stage] for stage in took}

    def _share(self, job: Job) -> float:
        """Return how much of a running job is done, 0 to 1."""
        if job.stage == "train":
            return self._share_of_training(job)
        return min(samples_recorded(Path(job.ledger)) / self.size(job), 1.0) if self.size(job) else 0.0

    def _share_of_training(self, job: Job) -> float:
        """Return the share of its steps, or of its time, that a training has recorded; expect the rest at its pace."""
        model = self._run.settings.models[self._run.model_of(job.model)]
        path = Path(paths.TRAINING.format(model=job.model), "history.csv")
        try:
            if path.stat().st_mtime < self._begun[job]:  # that of an earlier training
                return 0.0
            with path.open(newline="", encoding="utf-8") as file:
                last = list(csv.DictReader(file))[-1]
            elapsed_s = float(last["elapsed_s"])
            share = min(max(int(last["step"]) / model.max_steps, elapsed_s / model.max_seconds), 1.0)
        except (OSError, IndexError, KeyError, ValueError):
            return 0.0
        self._expected[job] = elapsed_s / share
        return share

    def _expected_until(self, job: Job, part: float) -> float:
        """Return the seconds that a job is expected to take until a part of its samples is done."""
        start_s = 0.0 if job.stage == "train" else start_seconds(job)
        return start_s + part * (self._expected[job] - start_s)


def start_seconds(job: Job) -> float:
    """Return the seconds of a job before its first sample or step."""
    return _JOB_S.get(job.stage, _OTHER_JOB_S)


def expected_seconds(run: Run, job: Job) -> float:
    """Return the seconds that a job is expected to take."""
    seconds = start_seconds(job)
    if job.stage == "train":
        model = run.settings.models[run.model_of(job.model)]
        return seconds + min(model.max_steps * _STEP_S, model.max_seconds)
    if job.stage in ("weigh", "validate"):
        mpx, samples = run.training_mpx, 0
    elif job.stage == "combine":
        mpx, samples = run.compared_mpx(job.model), 0
    elif job.batch:
        samples = run.todo.sizes.get(job, 0)
        mpx = sum(run.mpx(job.batch)) * samples / len(run.batches[job.batch])
    else:
        mpx, samples = 0.0, len(run.samples) if job.stage == "report" else 0
    field_s = run.settings.masks.pairs_per_px * 1e6 * _PAIR_S if job.stage == "stitch" else 0.0  # of each Mpx
    return seconds + samples * _SAMPLE_S.get(job.stage, 0.0) + mpx * (_MPX_S.get(job.stage, 0.0) + field_s)
