"""One run of the workflow: what it found in the project, what it has to do, how it begins and ends.

The rules ask here for all that needs no Snakemake. Settings and the names in wildcards go in, paths and text come out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import identity_of, read_json, sweep, why_not_written
from pipeline.project.channels import with_channels
from pipeline.project.checks import check_files, check_masks, check_measurements, check_networks, unseen_views
from pipeline.project.drop.drop_folder import (
    Samples,
    find_samples,
    last_run,
    refuse_for_cluster,
    settle,
    write_samples,
)
from pipeline.project.drop.image_files import SUFFIXES
from pipeline.project.drop.names import nearest_to
from pipeline.project.drop.unused_files import unused_files
from pipeline.project.jobs.expected import Expected
from pipeline.project.jobs.order import Job, jobs_before
from pipeline.project.jobs.todo import Todo, TrainingSet, find_todo
from pipeline.project.requested_resources import files_mpx, slide_mpx
from pipeline.project.run_lock import lock_project
from pipeline.project.sample_sheet import read_groups, read_unknown
from pipeline.project.splits import group_pairs, split_pairs
from pipeline.project.stage_settings import comparison_of, network_file, split_of, stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import Settings

_MOST_WARNINGS = 3  # of one kind


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run found when it began.

    Attributes
    ----------
    samples : Samples
        All slides of the drop folder, also those that wait or are refused.
    groups : dict of str
        By sample, from the sample sheet.
    unused : list of str
        Files, and lines of the sample sheet, that nothing uses, with the reason.
    training : TrainingSet
        Empty if nothing is trained.
    todo : Todo
        The jobs that it has to do. Empty in the processes of its jobs.
    was_killed : bool
        Whether the last run was, and its lock has just been removed.
    notes : list of str
        What was chosen for the user, and what is doubtful in the configuration.
    """

    settings: Settings
    samples: Samples
    groups: dict[str, str]
    unused: list[str]
    training: TrainingSet
    todo: Todo
    was_killed: bool
    notes: list[str]

    @classmethod
    def find(
        cls, settings: Settings, *, is_main: bool, on_cluster: bool, waits: bool, only_training: bool = False
    ) -> Run:
        """Lock the project, look for slides and training images, and compare with what is done.

        Parameters
        ----------
        is_main : bool
            Whether this process plans the run. One of a job takes the samples that its run wrote down.
        on_cluster : bool
            Whether names that cannot be passed to jobs of a cluster are refused.
        waits : bool
            Whether it may wait for slides that changed just now, if there are no others.
        only_training : bool
            Whether slides are left to the next run.

        Raises
        ------
        SlidemillError
            If there is neither a slide nor anything to train, a sample sheet or the training images are not usable,
            or their channels differ.
        """
        if Path.cwd().resolve().is_relative_to(Path(settings.slides).resolve()):
            raise SlidemillError(f"slides: {settings.slides} holds the whole project, results too; name a folder in it")
        was_killed = is_main and lock_project(begins=waits)
        samples = (not is_main and last_run().samples) or find_samples(settings)
        samples = settle(settings, samples) if is_main and waits and not only_training else samples
        samples = refuse_for_cluster(samples) if on_cluster else samples
        if not samples and not settings.trainings:
            raise SlidemillError(
                f"no slides in {Path(settings.slides).absolute()} (suffixes: {', '.join(SUFFIXES)}); drop some, set "
                "`slides`, or name another project with --directory"
            )
        if is_main:
            check_files(settings)
            check_masks(settings)
        training = _training_set(settings)
        own = [Path(sample.slide) for sample in samples.values() if sample.is_ready and sample.channels is None]
        settings, notes = with_channels(settings, [pair.image for pair in training.pairs], own)
        if is_main:
            check_measurements(settings, [sample.channels for sample in samples.values() if sample.is_ready])
        todo = find_todo(settings, samples, training, Expected(settings)) if is_main else Todo.nothing()
        return cls(
            settings=settings,
            samples=samples,
            groups=read_groups(Path(settings.samples), samples) if is_main else {},
            unused=_unused(settings, samples, training) if is_main else [],
            training=training,
            todo=todo.without_slides() if only_training else todo,
            was_killed=was_killed,
            notes=[*notes, *unseen_views(settings)],
        )

    @cached_property
    def batches(self) -> dict[str, list[str]]:
        """Samples of each batch."""
        batches: dict[str, list[str]] = {}
        for name, sample in self.samples.items():
            if sample.is_ready:
                batches.setdefault(sample.batch, []).append(name)
        return batches

    @property
    def warnings(self) -> list[str]:
        """What a user should know before the first job."""
        lines = ["the last run was killed; its lock is removed"] if self.was_killed else []
        lines += self.notes
        waiting = [sample.waits for sample in self.samples.values() if sample.waits]
        refused = [sample.refused for sample in self.samples.values() if sample.refused]
        lines += [f"skipped: {reason}" for reasons in (waiting, refused) for reason in reasons[:_MOST_WARNINGS]]
        return lines + self.unused

    def network(self, model: str) -> str:
        """Return the path of a network (of a model, an ensemble or a fold)."""
        return network_file(self.settings, model)

    def members(self, model: str) -> list[str]:
        """Return the paths of the networks that an ensemble, or a model in folds, averages."""
        return [self.network(member) for member in self.settings.averages[model].members]

    def model_of(self, training: str) -> str:
        """Return the model of a training: that of its fold, or the one of this name."""
        model, _ = self.settings.trainings.get(training, (training, None))
        return model

    @cached_property
    def config(self) -> Callable[..., str]:
        """Return the part of the configuration that a job gets, as JSON, from its stage and model."""
        return cache(partial(stage_config, self.settings))

    @cached_property
    def mpx(self) -> Callable[[str], list[float]]:
        """Return the most millions of pixels of each slide of a batch; Snakemake asks many times for each job."""
        return cache(lambda batch: [slide_mpx(self.samples[name]) for name in self.batches[batch]])

    def before(self, stage: str, model: str, batch: str = "", sample: str = "") -> list[str]:
        """Return the ledgers that a job needs, of those that this run makes."""
        job = Job(stage, model, self.samples[sample].batch if sample else batch)
        return [one.ledger for one in jobs_before(self.settings, job) if one in self.todo.jobs]

    @cached_property
    def training_mpx(self) -> float:
        """The most millions of pixels of all training images."""
        return files_mpx(pair.image for pair in self.training.pairs)

    @cached_property
    def compared_mpx(self) -> Callable[[str], float]:
        """Return the most millions of pixels that go through networks to compare an ensemble; 0 if it is not."""

        def of(model: str) -> float:
            average = self.settings.averages[model]
            if comparison_of(self.settings, model) is None:
                return 0.0
            held_back = self.training.held_back[average.members[0]]
            return files_mpx(pair.image for pair in held_back) * average.passes

        return cache(of)

    def per_slide(self, pattern: str) -> list[str]:
        """Return the paths of one kind of result, such as ``paths.VERIFICATION``, of every network and slide."""
        names = [name for name, sample in self.samples.items() if sample.is_ready]
        return [pattern.format(model=model, sample=name) for model in self.settings.networks for name in names]

    def made_from(self, model: str, sample: str) -> str:
        """Return the fingerprint of the prediction of a sample."""
        return Expected(self.settings).of(model, self.samples[sample])["predict"]

    @cached_property
    def report(self) -> str:
        """The fingerprint of a report on these samples, under these settings."""
        samples = {name: vars(sample) for name, sample in self.samples.items()}
        return identity_of([self.config("report"), samples, self.groups])

    @property
    def is_reported(self) -> bool:
        """Whether the report is one of this run: nothing is to do, and no slide came or went."""
        return not self.todo.jobs and reported() == self.report

    def check_networks(self, workflow_folder: Path) -> None:
        """Refuse options that networks do not have, if one is trained; ``workflow_folder`` is that of the code."""
        if any(job.stage == "train" for job in self.todo.jobs):
            check_networks(self.config("report"), _environment(workflow_folder))

    def begin(self, command: str, *, renews_report: bool = True) -> None:
        """Delete what killed jobs left; write down the samples and the command, for the jobs and the report.

        ``renews_report`` is whether the report is among the files that were asked for.
        """
        sweep(Path(paths.REPORT), is_kept=can_be_continued)
        if renews_report and not self.is_reported:
            Path(paths.PROVENANCE).unlink(missing_ok=True)  # so that an old report is not taken for that of this run
        write_samples(self.samples, command, self.report)

    def end(self, *, has_lost_jobs: bool, is_stopped: bool = False) -> None:
        """Remember what is done, so that the next run need not look; and which jobs did not end, for the report.

        Only the batches of its own jobs are looked at: nothing was to do in the others when it began.
        """
        try:
            ours = {job.batch for job in self.todo.jobs}
            samples = {name: sample for name, sample in self.samples.items() if sample.batch in ours}
            left = find_todo(self.settings, samples, self.training, Expected(self.settings))
            self.todo.remember(left)
            if has_lost_jobs:
                lost = [job.ledger for job in left.jobs & self.todo.jobs]
                write_samples(self.samples, last_run().command, self.report, lost, stopped=is_stopped)
        except SlidemillError as error:  # on a full disk: it would only have saved time
            print(f"\n{error}", file=sys.stderr)


def can_be_continued(path: Path) -> bool:
    """Return whether an unfinished file is of use to the next attempt: a prediction or a ledger."""
    return path.name.endswith(".zarr.zip") or path.is_relative_to(paths.LEDGERS)


def _unused(settings: Settings, samples: Samples, training: TrainingSet) -> list[str]:
    """Return what nothing uses; stop if the sample sheet names no slide at all."""
    unknown = read_unknown(Path(settings.samples), samples)
    lines = unused_files(settings, samples, [pair.name for pair in training.pairs])
    if unknown:
        first, more = unknown[0][1], f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        lines.append(f"{settings.samples}: no slide {first!r}{more}: deleted, or misspelt{nearest_to(first, samples)}")
    return lines


def _training_set(settings: Settings) -> TrainingSet:
    if not settings.trainings:
        return TrainingSet(pairs=[], held_back={})
    pairs = find_pairs(Path(settings.training.images), Path(settings.training.labels))
    groups = group_pairs(pairs, Path(settings.training.samples))
    held_back = {name: split_pairs(groups, split_of(settings, name))[1] for name in settings.trainings}
    return TrainingSet(pairs=pairs, held_back=held_back)


def reported() -> str:
    """Return the fingerprint of the run that the last report is of; empty if there is none."""
    try:
        return str(read_json(Path(paths.PROVENANCE)).get("run", ""))
    except SlidemillError:
        return ""


def _environment(workflow_folder: Path) -> dict[str, str]:
    """Return the environment of a process that runs the code of the workflow, whatever version is installed."""
    return {**os.environ, "PYTHONPATH": python_path(str(workflow_folder)), "PYTHONSAFEPATH": "1"}


def python_path(*before: str) -> str:
    """Return PYTHONPATH, after other folders, without empty entries: Python takes them for the project folder."""
    entries = [*before, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(entry for entry in entries if entry)


def write_missing_report(run: Run, workflow_folder: Path) -> bool:
    """Write the report of a run in which a job was killed, so that its own did not begin; return whether there is one.

    The code in ``workflow_folder``, that of the Snakefile, is run, as for the jobs.
    """
    if reported() == run.report:
        return True
    command = ["python", "-m", "pipeline", "report", "--output", paths.REPORT, "--config", run.config("report")]
    log = Path(paths.LOG["report"])
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            done = subprocess.run(command, env=_environment(workflow_folder), stderr=file, check=False)
    except OSError as error:
        print(f"\n{log}: cannot be written: {why_not_written(log, error)}", file=sys.stderr)
        return False
    if done.returncode:
        reason = log.read_text(errors="replace").strip().rpartition("\n")[2]
        print(f"\nthe report could not be written either ({log}): {reason}", file=sys.stderr)
    return done.returncode == 0
