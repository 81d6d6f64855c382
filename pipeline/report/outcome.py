"""The state of every sample, read from files and logs: done, waiting, or failed at which stage and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.base import paths
from pipeline.base.errors import Failure, SlideError, SlidemillError, read_failure
from pipeline.project.drop_folder import Sample, samples_of_run
from pipeline.project.stage_settings import network_file
from pipeline.settings.schema import Settings
from pipeline.tiling.plan import read_plan

_REFUSED_AT = "drop"  # no stage: refused before the first one
_NOT_YET = "not run yet; the next run takes it"
KILLED = (
    "the job left no error message: probably killed (memory, time limit, shutdown), or the disk was full; run the same "
    "command again, with more memory, time or disk space if that repeats"
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The state of one sample under one model; a file is None if it is missing or out of date.

    ``stage``, ``error_class``, ``error`` and ``log`` say why it failed; ``error`` also why it waits.
    """

    sample: str
    model: str
    slide: Path
    batch: str = ""
    reference: Path | None = None
    mask: Path | None = None
    objects_table: Path | None = None
    annotations: Path | None = None
    metrics: Path | None = None
    stage: str = ""
    error_class: str = ""
    error: str = ""
    log: Path | None = None

    @property
    def status(self) -> Literal["done", "failed", "waiting"]:
        """``done`` if every file that the sample should have is there and up to date."""
        if self.stage:
            return "failed"
        return "waiting" if self.error else "done"


def outcomes(settings: Settings, *, check_age: bool) -> list[Outcome]:
    """Return the outcome of every slide of the run under every model, ordered by model and sample.

    With ``check_age`` a result that is older than its sources counts as missing: a job before it failed.
    """
    samples = samples_of_run(settings)
    return [
        _outcome(name, sample, model, settings, check_age) if sample.is_ready else _not_run(name, sample, model)
        for model in settings.networks
        for name, sample in samples.items()
    ]


def _not_run(name: str, found: Sample, model: str) -> Outcome:
    """Return the outcome of a slide that the run refused or that waits."""
    stage, error_class = (_REFUSED_AT, SlideError.__name__) if found.refused else ("", "")
    error = found.refused or found.waits
    return Outcome(sample=name, model=model, slide=Path(found.slide), stage=stage, error_class=error_class, error=error)


def _outcome(sample: str, found: Sample, model: str, settings: Settings, check_age: bool) -> Outcome:
    slide, reference = Path(found.slide), Path(found.reference) if found.reference else None
    names = {"sample": sample, "model": model, "batch": found.batch}
    network = Path(network_file(settings, model))
    plan = Path(paths.PLAN.format(**names))
    mask = _current(Path(paths.MASK.format(**names)), [slide, plan, network] if check_age else [])
    of_mask = [mask] if check_age else []
    objects = _current(Path(paths.OBJECTS.format(**names)), of_mask)
    annotations = _current(Path(paths.ANNOTATIONS.format(**names)), of_mask)
    metrics = _current(Path(paths.METRICS.format(**names)), [mask, reference] if check_age else [])
    metrics = metrics if reference is not None else None
    failure, log = Failure("", "", ""), None
    if mask is None:
        failure, log = _reason(names, plan, _network_logs(model, settings))
    elif objects is None or annotations is None:
        failure, log = _reason_in_logs(names, [paths.LOG["objects"]])
    elif reference is not None and metrics is None:
        failure, log = _reason_in_logs(names, [paths.LOG["evaluate"]])
    slides = Path(paths.SLIDES)
    of_run = log is not None and (not slides.is_file() or log.stat().st_mtime >= slides.stat().st_mtime)
    if failure.stage and not failure.kind and not of_run:
        failure, log = Failure("", "", _NOT_YET), None
    return Outcome(
        sample=sample,
        model=model,
        slide=slide,
        batch=found.batch,
        reference=reference,
        mask=mask,
        objects_table=objects,
        annotations=annotations,
        metrics=metrics,
        stage=failure.stage,
        error_class=failure.kind,
        error=failure.message,
        log=log,
    )


def _current(path: Path, sources: list[Path | None]) -> Path | None:
    """Return ``path`` if it and its sources exist, and it is not older than any of them."""
    if not path.is_file() or not all(source and source.exists() for source in sources):
        return None
    newest = max((source.stat().st_mtime_ns for source in sources if source), default=0)
    return path if path.stat().st_mtime_ns >= newest else None


def _network_logs(model: str, settings: Settings) -> list[str]:
    """Return the logs of the jobs that make a network, in the order of the jobs."""
    if model in settings.averages:
        members = settings.averages[model].members
        logs = dict.fromkeys(log for member in members for log in _network_logs(member, settings))
        return [*logs, paths.LOG["combine"].format(model=model)]
    if model not in settings.trainings:
        return []
    name, _ = settings.trainings[model]
    start = settings.models[name].pretrained
    before = _network_logs(start, settings) if start in settings.models else []
    return [*before, paths.LOG["weigh"].format(model=name), paths.LOG["train"].format(model=model)]


def _reason(names: dict[str, str], plan: Path, network: list[str]) -> tuple[Failure, Path | None]:
    """Return the failure of the first stage that failed, and its log."""
    if plan.is_file():
        log = _existing(paths.LOG["tile"].format(**names))
        try:
            if error := read_plan(plan).error:
                return Failure("tile", SlideError.__name__, error), log
        except SlidemillError as error:
            return Failure("tile", type(error).__name__, str(error)), log
    return _reason_in_logs(names, [paths.LOG["tile"], paths.LOG["predict"], paths.LOG["stitch"]], network)


def _reason_in_logs(
    names: dict[str, str], chain: list[str], network: Sequence[str] = ()
) -> tuple[Failure, Path | None]:
    """Return the first failure in the logs of the network, then of a chain of stages, and its log.

    A log of the chain that is older than one before it is of an earlier run. If no log names a failure, the job of the
    last one was killed.
    """
    logs = [log for pattern in network if (log := _existing(pattern.format(**names)))]
    newest_ns = max((log.stat().st_mtime_ns for log in logs), default=0)
    for pattern in chain:
        log = _existing(pattern.format(**names))
        if log and log.stat().st_mtime_ns >= newest_ns:
            newest_ns = log.stat().st_mtime_ns
            logs.append(log)
    for log in logs:
        if found := read_failure(_end_of(log), log.parts[1]):
            return found, log
    stage = (logs[-1] if logs else Path(chain[-1])).parts[1]
    if not logs:
        return Failure(stage, "", _NOT_YET), None
    return Failure(stage, "", KILLED), logs[-1]


def _existing(path: str) -> Path | None:
    return Path(path) if Path(path).is_file() else None


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        return file.read().decode("utf-8", errors="replace")
