"""What a run has to do: the jobs whose results are not those that it expects, and no others.

A batch that was done is remembered by one fingerprint of its slides, settings and network, in ``results/done.json``;
then its ledgers are not even read. That file only saves time: without it, ledgers say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, Self

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import identity_of, read_json, states_of, write_json
from pipeline.project.drop.drop_folder import Sample, Samples
from pipeline.project.jobs.expected import STAGES, Expected
from pipeline.project.jobs.fingerprints import Inputs, recipe
from pipeline.project.jobs.ledger import MAKERS, Entry, has_failed, ledger_path, read_ledger, read_recipe
from pipeline.project.jobs.network_job import inputs_of_combine, inputs_of_train, inputs_of_validate, inputs_of_weigh
from pipeline.project.jobs.order import Job, jobs_before, network_jobs
from pipeline.project.jobs.reasons import why_again, why_network_again
from pipeline.project.stage_settings import comparison_of, network_file, start_of
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.schema import Settings

# Pictures that a stage draws, by their names in ``paths.PICTURE``
PICTURES = {
    "objects": ("image", "predicted", "predicted_outlines", "marks"),
    "evaluate": ("truth", "truth_outlines", "error"),
}
# Files of a sample that must be there. A prediction may be deleted: it is made again when a mask needs it.
FILES = {
    "tile": (paths.PLAN, paths.TISSUE),
    "predict": (),
    "stitch": (paths.MASK, paths.SCORES),
    "objects": (
        paths.OBJECTS,
        paths.ANNOTATIONS,
        paths.REGIONS,
        *(paths.PICTURE[name] for name in PICTURES["objects"]),
    ),
    "evaluate": (paths.METRICS, *(paths.PICTURE[name] for name in PICTURES["evaluate"])),
}
_OF_EVERY = [pattern for stage in STAGES[:-1] for pattern in FILES[stage]]
_OF_REFERENCED = [*_OF_EVERY, *FILES["evaluate"]]


class Reason(NamedTuple):
    """Why a stage of a model is to do; ``text`` is empty if it was never done."""

    stage: str
    model: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Todo:
    """What a run has to do.

    Attributes
    ----------
    sizes : dict of int
        All jobs, each with the number of samples that it has to make; 0 for those of networks.
    done : dict
        By model, the batches in which nothing is to do, with a fingerprint of each.
    reasons : Counter of Reason
        Why, with the number of samples.
    """

    sizes: dict[Job, int]
    done: dict[str, dict[str, str]]
    reasons: Counter[Reason]

    @classmethod
    def nothing(cls) -> Self:
        """Return what a process has that plans nothing."""
        return cls(sizes={}, done={}, reasons=Counter())

    @cached_property
    def jobs(self) -> frozenset[Job]:
        """The jobs."""
        return frozenset(self.sizes)

    def without_slides(self) -> Todo:
        """Return the jobs that make networks."""
        reasons = {reason: count for reason, count in self.reasons.items() if reason.stage not in STAGES}
        sizes = {job: size for job, size in self.sizes.items() if not job.batch}
        return replace(self, sizes=sizes, reasons=Counter(reasons))

    def remember(self, left: Todo) -> None:
        """Write down which batches are done after a run that began with this; ``left`` is of those it worked on."""
        write_json(Path(paths.DONE), {model: done | left.done[model] for model, done in self.done.items()})


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """All training pairs, and those held back from each training; empty if nothing is trained."""

    pairs: list[TrainingPair]
    held_back: dict[str, list[TrainingPair]]


def find_todo(settings: Settings, samples: Samples, training: TrainingSet, expected: Expected) -> Todo:
    """Compare what a run expects with what ledgers and files say."""
    reasons: Counter[Reason] = Counter()
    sizes = dict.fromkeys(_jobs_of_networks(settings, training, expected, reasons), 0)
    remade = {job.model for job in sizes if job.stage in ("train", "combine")}
    batches: dict[str, Samples] = {}
    for name, sample in samples.items():
        if sample.is_ready:
            batches.setdefault(sample.batch, {})[name] = sample
    known = _known()
    done: dict[str, dict[str, str]] = {}
    for model in settings.networks:
        done[model] = {}
        for batch, members in batches.items():
            if model in remade:
                stages = Counter(dict.fromkeys(STAGES, len(members)))
                stages["evaluate"] = sum(bool(sample.reference) for sample in members.values())
                reasons[Reason(STAGES[0], model, "")] += len(members)
            else:
                identity = _identity(model, batch, members, expected)
                is_known = known.get(model, {}).get(batch) == identity
                stages = Counter() if is_known else _stages_to_do(settings, model, batch, members, expected, reasons)
                if not stages:
                    done[model][batch] = identity
            sizes |= {Job(stage, model, batch): count for stage, count in stages.items() if count}
    return Todo(sizes=sizes, done=done, reasons=reasons)


def _known() -> dict[str, dict[str, str]]:
    try:
        return read_json(Path(paths.DONE))
    except SlidemillError:
        return {}


def _identity(model: str, batch: str, members: Samples, expected: Expected) -> str:
    """Return the fingerprint of a batch: its slides, settings and network, and the files that were made of them."""
    slides = [[name, one.pixels, one.truth, one.outlines, one.is_cut] for name, one in members.items()]
    return identity_of([expected.common(model), slides, states_of(_files_of(model, batch, members))])


def _has_references(members: Samples) -> bool:
    return any(sample.reference for sample in members.values())


def _files_of(model: str, batch: str, members: Samples) -> Iterator[str]:
    """Yield the files of a batch, ledgers first."""
    for stage in STAGES if _has_references(members) else STAGES[:-1]:
        yield Job(stage, model, batch).ledger
    for name, sample in members.items():
        for pattern in _OF_REFERENCED if sample.reference else _OF_EVERY:
            yield pattern.format(model=model, sample=name)


def _stages_to_do(
    settings: Settings, model: str, batch: str, members: Samples, expected: Expected, reasons: Counter[Reason]
) -> Counter[str]:
    """Return in how many samples of a batch each stage is to do, by its ledgers; count the reasons."""
    ledgers = {stage: read_ledger(ledger_path(stage, model, batch)) for stage in STAGES}
    recipes = cache(lambda stage: read_recipe(ledger_path(stage, model, batch)))
    stages: Counter[str] = Counter()

    def why(stage: str, entry: Entry | None, sample: Sample) -> str:
        inputs = expected.inputs(model, sample)[stage]
        lacks = _lacking(entry, expected.kept(model)) if stage == "predict" else []
        return why_again(entry, recipes(stage), recipe(stage, expected.config(stage, model)), inputs, lacks=lacks)

    for name, sample in members.items():
        wanted = expected.of(model, sample)
        found = {stage: ledgers[stage].get(name) for stage in wanted}
        missing = {stage for stage in wanted if not is_current(found[stage], stage, wanted[stage])}
        predicted = found["predict"]
        if _lacking(predicted, expected.kept(model)):
            missing.add("predict")
        reads_predictions = {"stitch", "evaluate"} if settings.prediction.probabilities else {"stitch"}
        if missing & reads_predictions and not (predicted and predicted.has_files):
            missing.add("predict")
        stages.update(missing)
        if missing:
            first = min(missing, key=STAGES.index)
            reasons[Reason(first, model, why(first, found[first], sample))] += 1
    return stages


def _lacking(predicted: Entry | None, kept: Iterable[str]) -> list[str]:
    """Return what a prediction must have beside its labels and has not."""
    return [name for name in kept if predicted is None or not predicted.found.get(name)]


def is_current(entry: Entry | None, stage: str, wanted: str) -> bool:
    """Return whether a stage of a sample is done: as wanted, and with its files.

    A prediction may be missing: it matters to masks alone.
    """
    if entry is None or not entry.is_done or entry.fingerprint != wanted:
        return False
    return stage == "predict" or entry.has_files


def _jobs_of_networks(
    settings: Settings, training: TrainingSet, expected: Expected, reasons: Counter[Reason]
) -> set[Job]:
    """Return the jobs that make networks; count why, of those that do not follow from another one."""
    jobs: set[Job] = set()
    for job in sorted(network_jobs(settings), key=lambda job: job.stage == "weigh"):  # after the trainings
        stage, name, _ = job
        if stage == "weigh" and not (has_failed(stage, name) or any(job in jobs_before(settings, one) for one in jobs)):
            continue  # no training needs it
        inputs = _inputs_of(job, settings, training)
        follows = any(one in jobs for one in jobs_before(settings, job) if one.stage in MAKERS)
        if follows or not expected.serves(stage, name, inputs):
            jobs.add(job)
            if not follows:
                reasons[Reason(stage, name, why_network_again(stage, name, expected.config(stage, name), inputs))] += 1
    return jobs


def _inputs_of(job: Job, settings: Settings, training: TrainingSet) -> Inputs:
    """Return what a job of a network works on."""
    stage, name, _ = job
    if stage == "weigh":
        return inputs_of_weigh(training.pairs)
    if stage == "train":
        return inputs_of_train(training.pairs, training.held_back[name], start=start_of(settings, name))
    if stage == "validate":
        return inputs_of_validate(training.held_back[name], Path(network_file(settings, name)))
    members = settings.averages[name].members
    held_back = training.held_back[members[0]] if comparison_of(settings, name) else []
    return inputs_of_combine([Path(network_file(settings, member)) for member in members], held_back)
