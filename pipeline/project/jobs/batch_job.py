"""A job of a batch: each of its samples gets an outcome, and the job ends well when all have one.

A stage says how one sample is made. This module decides which samples there are to make, works through them in a pool
of processes, and writes the ledger. A sample that is known under its fingerprint and whose files are there is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import SlidemillError, StorageError, failure_of
from pipeline.project.drop.drop_folder import Sample, Samples, members_of_batch
from pipeline.project.jobs.fingerprints import (
    BEFORE,
    Inputs,
    Network,
    Recipe,
    fingerprint,
    inputs_of,
    network_fingerprint,
    plan_of_pixels,
    recipe,
)
from pipeline.project.jobs.ledger import (
    Entry,
    LedgerWriter,
    has_failed,
    ledger_path,
    makers_of,
    read_ledger,
    read_recipe,
    write_ledger,
)
from pipeline.project.requested_resources import workers_within
from pipeline.runtime.pool import ProcessLostError, run_all
from pipeline.settings.section import Section

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One sample that a stage has to make.

    Attributes
    ----------
    slide : Sample
        What the run found: the paths of slide and reference, the row of the sample sheet.
    before : Entry or None
        What the stage before recorded; None in the first stage.
    threads, memory_mb : int
        What it may use.
    """

    sample: str
    model: str
    slide: Sample
    fingerprint: str
    inputs: Inputs
    before: Entry | None
    threads: int = 1
    memory_mb: int = 0

    def path(self, pattern: str) -> Path:
        """Return the path of one of its files, such as ``paths.MASK``."""
        return Path(pattern.format(model=self.model, sample=self.sample))

    def of_plane(self, pattern: str, place: Mapping[str, int]) -> Path:
        """Return the path of a file of one plane of it, such as ``paths.PLANE_PREDICTION``; place is along t and z."""
        plane = "_".join(f"{axis}{number}" for axis, number in place.items())
        return Path(pattern.format(model=self.model, sample=self.sample, plane=plane))

    def prediction(self, place: Mapping[str, int]) -> Path:
        """Return the path of its prediction; of a stack whose planes are segmented one by one, that of a plane."""
        return self.of_plane(paths.PLANE_PREDICTION, place) if place else self.path(paths.PREDICTION)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a stage made of a sample: its files, and what it measured, as JSON types."""

    files: list[Path]
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """A job that has begun; ``tasks`` are the samples that it has to make."""

    stage: str
    tasks: list[Task]
    network: Network
    writer: LedgerWriter
    log: str

    def work_through(self, make: Callable[[Task], Made], *, threads: int, memory_mb: int) -> None:
        """Make all samples in processes: as many as threads and memory allow, so a single one with all threads.

        One that crashes its process, or takes more than its share of the memory, is tried again alone.
        ``make`` is a function of a module, perhaps with further arguments (``functools.partial``), since it is sent to
        the processes.
        """
        slides = [task.slide for task in self.tasks]
        workers = workers_within(slides, threads=threads, memory_mb=memory_mb)
        left = [replace(task, threads=max(1, threads // max(1, workers)), memory_mb=memory_mb) for task in self.tasks]
        if workers > 1:
            left = self._run(make, left, workers=workers, memory_mb=memory_mb // workers, is_last=False)
        alone = [replace(task, threads=threads) for task in left]
        self._run(make, alone, workers=1, memory_mb=memory_mb, is_last=True)

    def _run(
        self, make: Callable[[Task], Made], tasks: list[Task], *, workers: int, memory_mb: int, is_last: bool
    ) -> list[Task]:
        """Make samples; return those whose process did not survive, which fail if this is the last attempt."""
        lost: list[Task] = []
        threads = tasks[0].threads if tasks else 1
        calls = [partial(_timed, make, task) for task in tasks]
        for number, outcome in run_all(calls, workers=workers, threads=threads, memory_mb=memory_mb):
            try:
                made, seconds = outcome.result()
            except ProcessLostError as error:
                if is_last:
                    self.fail(tasks[number], error)
                lost.append(tasks[number])
            except Exception as error:  # of this sample; the others go on
                self.fail(tasks[number], error)
            else:
                self.done(tasks[number], made, seconds)
        return lost

    def done(self, task: Task, made: Made, seconds: float) -> None:
        """Record that a sample was made."""
        files = [str(path) for path in made.files]
        self._record(task, files=files, found=made.found, seconds=round(seconds, 3))

    def fail(self, task: Task, error: Exception) -> None:
        """Record why a sample failed. If results cannot be written, no sample is to blame: the job ends."""
        if isinstance(error, StorageError):
            raise error
        failure = failure_of(self.stage, error, self.log)
        log.warning(
            "%s: %s", task.sample, failure.message, exc_info=None if isinstance(error, SlidemillError) else error
        )
        self._record(task, failure=failure)

    def _record(self, task: Task, **outcome: Any) -> None:
        self.writer.record(task.sample, Entry(fingerprint=task.fingerprint, inputs=task.inputs, **outcome))

    def fail_all(self, error: Exception) -> None:
        """Record that all samples failed for one reason, such as a network that cannot be loaded."""
        for task in self.tasks:
            self.fail(task, error)


@contextmanager
def batch_job(
    stage: str,
    config: Section,
    *,
    model: str,
    batch: str,
    network: Path | None = None,
    has_all: Callable[[Entry], bool] = lambda _: True,
) -> Iterator[BatchJob]:
    """Begin the job of a stage on a batch; write its ledger if it ends well.

    Parameters
    ----------
    network : Path or None
        Network file, in the stages whose results depend on it.
    has_all : callable
        Whether what is known of a sample has all that the job needs, beside its files.

    Raises
    ------
    SlidemillError
        If the list of the run has no such batch.
    """
    members = members_of_batch(Path(paths.SLIDES), batch)
    made_with = network_fingerprint(network) if network else Network()
    made_by = recipe(stage, config.model_dump_json())
    ledger = ledger_path(stage, model, batch)
    with write_ledger(ledger, stage=stage, model=model, batch=batch, recipe=made_by) as writer:
        tasks = []
        for task in _tasks(stage, config, model, batch, members, made_with):
            known = writer.known.get(task.sample)
            if known and known.serves(task.fingerprint) and has_all(known):
                writer.keep(task.sample)
            else:
                tasks.append(task)
        log.info("%d samples, %d of them are up to date", len(members), len(writer.entries))
        if network and any(has_failed(*maker) for maker in makers_of(network)):
            tasks = []  # an old network may be left, which must not be taken for the one that is asked for
        where = paths.LOG[stage].format(model=model, batch=batch)
        yield BatchJob(stage=stage, tasks=tasks, network=made_with, writer=writer, log=where)


def _tasks(stage: str, config: Section, model: str, batch: str, members: Samples, network: Network) -> Iterator[Task]:
    """Yield the samples that the stage before has done, and that the stage concerns."""
    before = read_ledger(ledger_path(BEFORE[stage], model, batch)) if stage in BEFORE else None
    of_tile = ledger_path("tile", model, batch)
    plans, planned_by = (read_ledger(of_tile), read_recipe(of_tile)) if stage in ("predict", "stitch") else ({}, [])
    settings = config.model_dump_json()
    for name, sample in members.items():
        last = before.get(name) if before is not None else None
        if (before is not None and (last is None or not last.is_done)) or (
            stage == "evaluate" and not sample.reference
        ):
            continue
        made, plan = last.fingerprint if last else "", plans.get(name)
        if stage == "predict" and last and planned_by:
            made = plan_of_pixels(made, Recipe(*planned_by), last.inputs)
        inputs = inputs_of(stage, sample, before=made, plan=plan.fingerprint if plan else "", network=network)
        wanted = fingerprint(stage, settings, inputs)
        yield Task(sample=name, model=model, slide=sample, fingerprint=wanted, inputs=inputs, before=last)


def _timed(make: Callable[[Task], Made], task: Task) -> tuple[Made, float]:
    start = time.monotonic()
    made = make(task)
    return made, time.monotonic() - start
