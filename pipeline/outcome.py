"""What became of every sample: done, or failed at which stage and why. Read from the files and logs of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline import project
from pipeline.config import Settings
from pipeline.errors import SlidemillError, parse_error_line
from pipeline.plan import read_plan


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One sample under one model. A file is None where there is none."""

    sample: str
    model: str
    slide: Path
    reference: Path | None
    mask: Path | None
    objects: Path | None
    annotations: Path | None
    metrics: Path | None
    stage: str = ""
    error: str = ""
    log: Path | None = None

    @property
    def status(self) -> Literal["done", "failed"]:
        """``done`` if every file that the sample should have is there and up to date."""
        return "failed" if self.stage else "done"


def outcomes(settings: Settings, *, check_age: bool) -> list[Outcome]:
    """Return what became of every slide in the drop folder under every model, by model and sample.

    With ``check_age`` a result that is older than what it was made from counts as missing: a job before it failed.
    """
    references = project.find_images(Path(settings.references))
    slides = project.find_images(Path(settings.slides))
    return [
        _outcome(sample, slide, references.get(sample), model, settings, check_age)
        for model in settings.networks
        for sample, slide in slides.items()
    ]


def _outcome(
    sample: str, slide: Path, reference: Path | None, model: str, settings: Settings, check_age: bool
) -> Outcome:
    names = {"sample": sample, "model": model, "batch": project.batch_of(sample)}
    network = Path(settings.weights_of(model))
    plan = Path(project.PLAN.format(**names))
    mask = _current(Path(project.MASK.format(**names)), [plan, network] if check_age else [])
    of_mask = [mask] if check_age else []
    objects = _current(Path(project.OBJECTS.format(**names)), of_mask)
    annotations = _current(Path(project.ANNOTATIONS.format(**names)), of_mask)
    metrics = _current(Path(project.METRICS.format(**names)), [mask, reference] if check_age else [])
    metrics = metrics if reference is not None else None
    stage, error, log = "", "", None
    if mask is None:
        stage, error, log = _reason(names, plan, _network_logs(model, settings))
    elif objects is None or annotations is None:
        stage, error, log = _reason_in_logs(names, [project.OBJECTS_LOG])
    elif reference is not None and metrics is None:
        stage, error, log = _reason_in_logs(names, [project.EVALUATE_LOG])
    return Outcome(
        sample=sample,
        model=model,
        slide=slide,
        reference=reference,
        mask=mask,
        objects=objects,
        annotations=annotations,
        metrics=metrics,
        stage=stage,
        error=error,
        log=log,
    )


def _current(path: Path, made_from: list[Path | None]) -> Path | None:
    """Return ``path`` if it and all it is made from exist, and it is not older than any of them."""
    if not path.is_file() or not all(source and source.exists() for source in made_from):
        return None
    newest = max((source.stat().st_mtime_ns for source in made_from if source), default=0)
    return path if path.stat().st_mtime_ns >= newest else None


def _network_logs(model: str, settings: Settings) -> list[str]:
    """Return the logs of what makes a network, those of an ensemble's members and of where a training starts first."""
    if model in settings.averages:
        members = settings.averages[model].members
        logs = dict.fromkeys(log for member in members for log in _network_logs(member, settings))
        return [*logs, project.COMBINE_LOG.format(model=model)]
    if model not in settings.trainings:
        return []
    name, _ = settings.trainings[model]
    start = settings.models[name].pretrained
    before = _network_logs(start, settings) if start in settings.models else []
    return [*before, project.WEIGH_LOG.format(model=name), project.TRAIN_LOG.format(model=model)]


def _reason(names: dict[str, str], plan: Path, network: list[str]) -> tuple[str, str, Path | None]:
    """Return stage, message and log of the first stage that failed, in the order of the chain."""
    if plan.is_file():
        try:
            if error := read_plan(plan).error:
                return "tile", error, _existing(project.TILE_LOG.format(**names))
        except SlidemillError as error:
            return "tile", str(error), _existing(project.TILE_LOG.format(**names))
    return _reason_in_logs(names, [*network, project.TILE_LOG, project.PREDICT_LOG, project.STITCH_LOG])


def _reason_in_logs(names: dict[str, str], patterns: list[str]) -> tuple[str, str, Path | None]:
    log = None
    for pattern in patterns:
        log = _existing(pattern.format(**names)) or log
        if log and (found := parse_error_line(_last_line(log))):
            return (*found, log)
    stage = Path(patterns[-1] if log is None else log).parts[1]
    if log is None:
        return stage, "was not run; see the end of the workflow's output", None
    return stage, f"ended without a result or a reason; the job may have been killed, see {log}", log


def _existing(path: str) -> Path | None:
    return Path(path) if Path(path).is_file() else None


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
