"""One run of the workflow: what it found in the project, the files it makes, how it begins and ends.

The rules ask here for all that needs no Snakemake. Settings and the names in wildcards go in, paths and text come out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import sweep, why_not_written
from pipeline.project.drop_folder import Samples, find_samples, refuse_for_cluster, samples_of_run, write_samples
from pipeline.project.image_files import SUFFIXES
from pipeline.project.requested_resources import slide_mpx
from pipeline.project.run_lock import lock_project
from pipeline.project.sample_ids import has_probabilities
from pipeline.project.sample_sheet import read_groups, read_unknown
from pipeline.project.splits import Groups, group_pairs, split_pairs
from pipeline.project.stage_settings import network_file, split_of, stage_config, start_of
from pipeline.project.summary import last_lines
from pipeline.project.training_pairs import TrainingPair, find_pairs
from pipeline.settings.schema import Settings

_MOST_WARNINGS = 3  # of one kind


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run found when it began."""

    settings: Settings
    samples: Samples  # all slides of the drop folder, also those that wait or are refused
    groups: dict[str, str]  # by sample, from the sample sheet
    unknown: list[tuple[int, str]]  # lines of the sample sheet that name no slide
    training_groups: Groups  # empty if nothing is trained
    held_back: dict[str, list[TrainingPair]]  # by training
    was_killed: bool  # the last run was, and its lock has just been removed

    @classmethod
    def find(cls, settings: Settings, *, is_main: bool, on_cluster: bool) -> Run:
        """Lock the project and look for slides and training images.

        Parameters
        ----------
        is_main : bool
            Whether this process plans the run. One of a job takes the samples that its run wrote down.
        on_cluster : bool
            Whether names that cannot be passed to jobs of a cluster are refused.

        Raises
        ------
        SlidemillError
            If there are no slides, or a sample sheet or the training images are not usable.
        """
        was_killed = is_main and lock_project()
        samples = find_samples(settings) if is_main else samples_of_run(settings)
        samples = refuse_for_cluster(samples) if on_cluster else samples
        if not samples:
            raise SlidemillError(
                f"no slides in {settings.slides} (suffixes: {', '.join(SUFFIXES)}); drop some, or set `slides`"
            )
        groups: Groups = {}
        if settings.trainings:
            pairs = find_pairs(Path(settings.training.images), Path(settings.training.labels))
            groups = group_pairs(pairs, Path(settings.training.samples))
        sheet = Path(settings.samples)
        return cls(
            settings=settings,
            samples=samples,
            groups=read_groups(sheet, samples) if is_main else {},
            unknown=read_unknown(sheet, samples) if is_main else [],
            training_groups=groups,
            held_back={name: split_pairs(groups, split_of(settings, name))[1] for name in settings.trainings},
            was_killed=was_killed,
        )

    @cached_property
    def slides(self) -> dict[str, str]:
        """Paths of the slides that are segmented, by sample."""
        return {name: sample.slide for name, sample in self.samples.items() if sample.is_ready}

    @cached_property
    def references(self) -> dict[str, str]:
        """Paths of their references, by sample, where there are any."""
        return {name: self.samples[name].reference or "" for name in self.slides if self.samples[name].reference}

    @cached_property
    def batches(self) -> dict[str, list[str]]:
        """Samples of each batch."""
        batches: dict[str, list[str]] = {}
        for name in self.slides:
            batches.setdefault(self.samples[name].batch, []).append(name)
        return batches

    @property
    def waiting(self) -> list[str]:
        """Samples that wait for the next run."""
        return sorted(name for name, sample in self.samples.items() if sample.waits)

    @property
    def refused(self) -> list[str]:
        """Why samples are refused."""
        return sorted(sample.refused for sample in self.samples.values() if sample.refused)

    @cached_property
    def pairs(self) -> list[TrainingPair]:
        """All training pairs, sorted by name."""
        return sorted((pair for pairs in self.training_groups.values() for pair in pairs), key=lambda pair: pair.name)

    @property
    def warnings(self) -> list[str]:
        """What a user should know before the first job."""
        lines = ["the last run was killed; its lock is removed"] if self.was_killed else []
        waiting = [self.samples[name].waits for name in self.waiting]
        lines += [f"skipped: {reason}" for reasons in (waiting, self.refused) for reason in reasons[:_MOST_WARNINGS]]
        if self.unknown:
            more = f" and {len(self.unknown) - 1} more" if len(self.unknown) > 1 else ""
            lines.append(f"{self.settings.samples}: no slide {self.unknown[0][1]!r}{more}: deleted, or misspelt")
        return lines

    def network(self, model: str) -> str:
        """Return the path of a network (of a model, an ensemble or a fold)."""
        return network_file(self.settings, model)

    def members(self, model: str) -> list[str]:
        """Return the paths of the networks that an ensemble, or a model in folds, averages."""
        return [self.network(member) for member in self.settings.averages[model].members]

    def start(self, training: str) -> str | None:
        """Return the file that a training starts from, if it starts from one of this project or of the user."""
        start = start_of(self.settings, training)
        return None if start == "imagenet" else start

    def model_of(self, training: str) -> str:
        """Return the model of a training: that of its fold, or the one of this name."""
        model, _ = self.settings.trainings.get(training, (training, None))
        return model

    def weight_maps(self, model: str) -> list[str]:
        """Return the paths of the weight maps of a model, one per training pair."""
        return [paths.WEIGHT_MAP.format(model=model, name=pair.name) for pair in self.pairs]

    @cached_property
    def _stage_config(self) -> Callable[..., str]:
        return cache(partial(stage_config, self.settings))

    def config(
        self, stage: str, *, model: str | None = None, sample: str | None = None, batch: str | None = None
    ) -> str:
        """Return the part of the configuration that a job gets, as JSON; many thousand jobs share a few texts."""
        row = self.samples[sample].row if sample else None
        return self._stage_config(stage, model, row=row, probabilities=has_probabilities(batch) if batch else None)

    def mpx(self, *, model: str | None = None, sample: str | None = None, batch: str | None = None) -> list[float]:
        """Return the millions of pixels of each slide of a job, by its plan for the model if there is one."""
        names = self.batches[batch] if batch else [str(sample)]
        plans = [Path(paths.PLAN.format(model=model, sample=name)) if model else None for name in names]
        return [slide_mpx(self.samples[name], plan) for name, plan in zip(names, plans, strict=True)]

    def per_slide(self, pattern: str) -> list[str]:
        """Return the paths of one kind of result, such as ``paths.OBJECTS``, of every network and slide."""
        return [pattern.format(model=model, sample=name) for model in self.settings.networks for name in self.slides]

    def targets(self) -> Iterator[str]:
        """Yield all files that the report needs."""
        for name in self.slides:
            yield paths.APPEARANCE.format(sample=name)
        for training, (_, fold) in self.settings.trainings.items():
            # Not the network: if `folds` was set before, the one made by `combine` exists under the same name
            yield paths.HISTORY.format(model=training)
            if fold:
                yield paths.VALIDATION.format(model=training)
        for model in self.settings.networks:
            for batch in self.batches:
                yield paths.SPEED.format(model=model, batch=batch)
            for name in self.slides:
                yield paths.MASK.format(model=model, sample=name)
                yield paths.OBJECTS.format(model=model, sample=name)
                if name in self.references:
                    yield paths.METRICS.format(model=model, sample=name)

    def begin(self, command: str) -> None:
        """Delete what killed jobs left; write down the samples and the command, for the jobs and the report."""
        models = self.settings.networks
        predictions = {
            Path(paths.PREDICTION.format(model=model, batch=batch)) for model in models for batch in self.batches
        }
        sweep(Path(paths.REPORT), kept=predictions)
        write_samples(self.samples, command)


def print_summary() -> None:
    """Print the number of samples done, failed and waiting, if this run wrote the report."""
    table, page = Path(paths.ALL_METRICS), Path(paths.PAGE)
    if table.exists() and table.stat().st_mtime >= Path(paths.SLIDES).stat().st_mtime:
        print(f"\n{last_lines(table, page)}", file=sys.stderr)


def write_report_after_failure(settings: Settings, workflow_folder: Path) -> None:
    """Write the report of a run in which samples failed or are left, then print the summary.

    Without provenance.json, the next run writes the report again. The code in ``workflow_folder``, that of the
    Snakefile, is run, as for the jobs, whatever version is installed.
    """
    Path(paths.PROVENANCE).unlink(missing_ok=True)
    python_path = os.pathsep.join([str(workflow_folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = ["python", "-m", "pipeline", "report", "--output", paths.REPORT]
    log = Path(paths.LOG["report"])
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            done = subprocess.run(
                [*command, "--config", stage_config(settings, "report")],
                env=os.environ | {"PYTHONPATH": python_path},
                stderr=file,
                check=False,
            )
    except OSError as error:
        print(f"\n{log}: cannot be written: {why_not_written(log, error)}", file=sys.stderr)
        return
    if done.returncode == 0:
        print_summary()
    else:
        reason = log.read_text(errors="replace").strip().rpartition("\n")[2]
        print(f"\nthe report could not be written either ({log}): {reason}", file=sys.stderr)
