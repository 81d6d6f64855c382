"""The state of every sample, read from ledgers: done, waiting, or failed at which stage and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pipeline.base import paths
from pipeline.base.errors import Failure, SlideError
from pipeline.project.drop.drop_folder import LastRun, Sample, Samples, find_samples, last_run
from pipeline.project.jobs.expected import Expected
from pipeline.project.jobs.fingerprints import BEFORE
from pipeline.project.jobs.ledger import Entries, Entry, ledger_path, read_ledger, was_interrupted
from pipeline.project.jobs.order import Job, makers, with_all_before
from pipeline.project.jobs.todo import is_current
from pipeline.project.stage_settings import network_file
from pipeline.settings.schema import Settings

_REFUSED_AT = "drop"  # no stage: refused before the first one
_NOT_YET = "not run yet; the next run takes it"
KILLED = (
    "the job did not end: probably killed (memory, time limit, shutdown, Ctrl-C), or the disk was full; run the same "
    "command again, with more memory, time or disk space if that repeats"
)
STOPPED = "the run was stopped by its user; the next run goes on where it was"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of one sample under one model, with the paths of its files; None if its stage is not done.

    ``stage``, ``error_class``, ``error`` and ``log`` say why it failed; ``error`` also why it waits. ``found`` is what
    each stage that is done measured, see docs/contracts.md.
    """

    sample: str
    model: str
    slide: str
    reference: str | None = None
    mask: str | None = None
    objects_table: str | None = None
    annotations: str | None = None
    regions_table: str | None = None
    metrics: str | None = None
    stage: str = ""
    error_class: str = ""
    error: str = ""
    log: str = ""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def status(self) -> Literal["done", "failed", "waiting"]:
        """``done`` if every stage is done with the slide, the network and the settings of now."""
        if self.stage:
            return "failed"
        return "waiting" if self.error else "done"

    @property
    def is_done(self) -> bool:
        """Whether every stage is done."""
        return self.status == "done"


def pixel_um2(outcome: Outcome) -> float:
    """Return the area of a pixel of the mask of a sample that is done; NaN without a pixel size."""
    size_um = outcome.found["objects"]["pixel_size_um"]
    return math.nan if size_um is None else math.prod(size_um)


def outcomes(settings: Settings) -> list[Outcome]:
    """Return the outcome of every slide of the run under every model, ordered by model and sample."""
    last, expected = last_run(), Expected(settings)
    samples = last.samples or find_samples(settings)
    return [
        outcome
        for model in settings.networks
        for outcome in _outcomes_of_model(model, samples, settings, expected, last)
    ]


def _outcomes_of_model(
    model: str, samples: Samples, settings: Settings, expected: Expected, last: LastRun
) -> Iterator[Outcome]:
    network = _reason_in_network(model, settings, last)

    @cache  # it has many samples
    def entries_of(stage: str, batch: str) -> Entries:
        return read_ledger(ledger_path(stage, model, batch))

    for name, sample in samples.items():
        entries: Entries = {}
        reason = _reason_in_drop_folder(sample) or network  # what was made with an older one is no result
        if not reason:
            wanted = expected.of(model, sample)
            entries = {
                stage: entry
                for stage, fingerprint in wanted.items()
                if (entry := entries_of(stage, sample.batch).get(name))
                and (is_current(entry, stage, fingerprint) or (entry.failure and entry.fingerprint == fingerprint))
            }
            missing = [Job(stage, model, sample.batch) for stage in wanted if stage not in entries]
            begun = [job for job in missing if BEFORE.get(job.stage) in {None, *entries}]
            reason = _reason(entries.values(), begun, last, is_done=not missing)
        yield _outcome(name, sample, model, entries, reason)


def _outcome(name: str, sample: Sample, model: str, entries: Entries, reason: Failure | None) -> Outcome:
    """Return the outcome of a sample from the entries of its stages that are up to date."""
    done = {stage: entry.found for stage, entry in entries.items() if entry.is_done}
    stage, error_class, error, log = reason or Failure("", "", "")

    def made(by: str, pattern: str) -> str | None:
        return pattern.format(model=model, sample=name) if by in done else None

    return Outcome(
        sample=name,
        model=model,
        slide=sample.slide,
        reference=sample.reference,
        mask=made("stitch", paths.MASK),
        objects_table=made("objects", paths.OBJECTS),
        annotations=made("objects", paths.ANNOTATIONS),
        regions_table=made("objects", paths.REGIONS),
        metrics=made("evaluate", paths.METRICS),
        stage=stage,
        error_class=error_class,
        error=error,
        log=log,
        found=done,
    )


def _reason_in_drop_folder(sample: Sample) -> Failure | None:
    """Return why the run refused a slide, or why it waits; None if it is segmented."""
    if sample.refused:
        return Failure(_REFUSED_AT, SlideError.__name__, sample.refused)
    return Failure("", "", sample.waits) if sample.waits else None


def _reason_in_network(model: str, settings: Settings, last: LastRun) -> Failure | None:
    """Return why a network could not be made, or that it is not made yet; None if it is there."""
    jobs = with_all_before(settings, makers(settings, model))
    entries = [entry for job in jobs for entry in read_ledger(Path(job.ledger)).values()]
    return _reason(entries, jobs, last, is_done=not jobs or Path(network_file(settings, model)).is_file())


def _reason(entries: Iterable[Entry], jobs: Iterable[Job], last: LastRun, *, is_done: bool) -> Failure | None:
    """Return the first failure, else the first job that did not end, else that it is not done; None if it is."""
    failures = (entry.failure for entry in entries)
    not_yet = None if is_done else Failure("", "", _NOT_YET)
    return next(filter(None, chain(failures, (_why_lost(job, last) for job in jobs))), not_yet)


def _why_lost(job: Job, last: LastRun) -> Failure | None:
    """Return why a job did not end, of the last run or begun by hand; None if it did. What a user stopped waits."""
    if job.ledger not in last.lost and not was_interrupted(Path(job.ledger)):
        return None
    log = paths.LOG[job.stage].format(**job._asdict())
    return Failure("", "", STOPPED) if last.stopped else Failure(job.stage, "", KILLED, log)
