"""The state of every sample, read from ledgers: done, waiting, or failed at which stage and why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.base import paths
from pipeline.base.errors import Failure, SlideError
from pipeline.project.drop.drop_folder import LastRun, Sample, Samples, find_samples, last_run
from pipeline.project.jobs.expected import Expected
from pipeline.project.jobs.fingerprints import BEFORE
from pipeline.project.jobs.ledger import Entries, ledger_path, read_ledger, was_interrupted
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
        return not self.stage and not self.error


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
        if not sample.is_ready:
            yield _not_run(name, sample, model)
            continue
        if network:  # what was made with an older one is no result
            yield _outcome(name, sample, model, {}, network)
            continue
        wanted = expected.of(model, sample)
        entries = {
            stage: entry
            for stage, fingerprint in wanted.items()
            if (entry := entries_of(stage, sample.batch).get(name))
            and (is_current(entry, stage, fingerprint) or (entry.failure and entry.fingerprint == fingerprint))
        }
        reason = _reason_in_stages(entries, list(wanted), model, sample.batch, last)
        yield _outcome(name, sample, model, entries, reason)


def _not_run(name: str, sample: Sample, model: str) -> Outcome:
    """Return the outcome of a slide that the run refused or that waits."""
    stage, error_class = (_REFUSED_AT, SlideError.__name__) if sample.refused else ("", "")
    error = sample.refused or sample.waits
    return Outcome(sample=name, model=model, slide=sample.slide, stage=stage, error_class=error_class, error=error)


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


def _reason_in_network(model: str, settings: Settings, last: LastRun) -> Failure | None:
    """Return why a network could not be made, or that it is not made yet; None if it is there."""
    jobs = _jobs_of_network(model, settings)
    for stage, name in jobs:
        for entry in read_ledger(Path(paths.NETWORK_LEDGER.format(stage=stage, model=name))).values():
            if entry.failure:
                return entry.failure
    for stage, name in jobs:
        ledger = Path(paths.NETWORK_LEDGER.format(stage=stage, model=name))
        if _is_lost(ledger, last):
            return _lost(stage, paths.LOG[stage].format(model=name), last)
    is_there = not jobs or Path(network_file(settings, model)).is_file()
    return None if is_there else Failure("", "", _NOT_YET)


def _jobs_of_network(model: str, settings: Settings) -> list[tuple[str, str]]:
    """Return stage and name of the jobs that make a network, in their order."""
    if model in settings.averages:
        members = settings.averages[model].members
        jobs = dict.fromkeys(job for member in members for job in _jobs_of_network(member, settings))
        return [*jobs, ("combine", model)]
    if model not in settings.trainings:
        return []
    name, _ = settings.trainings[model]
    start = settings.models[name].pretrained
    before = _jobs_of_network(start, settings) if start in settings.models else []
    return [*before, ("weigh", name), ("train", model)]


def _lost(stage: str, log: str, last: LastRun) -> Failure:
    """Return why a job did not end; a sample of a run that the user stopped waits."""
    return Failure("", "", STOPPED) if last.stopped else Failure(stage, "", KILLED, log)


def _is_lost(ledger: Path, last: LastRun) -> bool:
    """Return whether a job did not end: one of the last run, or one that began by hand."""
    return str(ledger) in last.lost or was_interrupted(ledger)


def _reason_in_stages(entries: Entries, stages: list[str], model: str, batch: str, last: LastRun) -> Failure | None:
    """Return why a sample is not done, from the entries of its ``stages`` that are up to date; None if it is."""
    failed = [entries[stage].failure for stage in stages if stage in entries and entries[stage].failure]
    if failed:
        return failed[0]
    missing = [stage for stage in stages if stage not in entries]
    for stage in missing:
        if (stage not in BEFORE or BEFORE[stage] in entries) and _is_lost(ledger_path(stage, model, batch), last):
            return _lost(stage, paths.LOG[stage].format(model=model, batch=batch), last)
    return Failure("", "", _NOT_YET) if missing else None
