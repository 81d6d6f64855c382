"""What became of every sample: done, or failed at which stage and why. Read from the files and logs of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import Settings
from pipeline.errors import SlidemillError, parse_error_line
from pipeline.plan import read_plan
from pipeline.project import (
    EVALUATE_LOG,
    MASK,
    METRICS,
    PLAN,
    PREDICT_LOG,
    STITCH_LOG,
    TILE_LOG,
    TRAIN_LOG,
    WEIGH_LOG,
    batch_of,
    find_images,
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One sample under one model. ``mask``, ``metrics`` and ``reference`` are None where there is none."""

    sample: str
    model: str
    slide: Path
    reference: Path | None
    mask: Path | None
    metrics: Path | None
    stage: str = ""
    error: str = ""
    log: Path | None = None

    @property
    def status(self) -> Literal["done", "failed"]:
        """``done`` if all files that the sample should have are there."""
        return "failed" if self.stage else "done"


def outcomes(settings: Settings) -> list[Outcome]:
    """Return what became of every slide in the drop folder under every model, by model and sample."""
    references = find_images(Path(settings.references))
    slides = find_images(Path(settings.slides))
    return [
        _outcome(sample, slide, references.get(sample), model)
        for model in settings.models
        for sample, slide in slides.items()
    ]


def _outcome(sample: str, slide: Path, reference: Path | None, model: str) -> Outcome:
    names = {"sample": sample, "model": model, "batch": batch_of(sample)}
    mask, metrics = _existing(MASK.format(**names)), _existing(METRICS.format(**names))
    if mask is not None and (reference is None or metrics is not None):
        return Outcome(sample=sample, model=model, slide=slide, reference=reference, mask=mask, metrics=metrics)
    stage, error, log = _reason(names, mask)
    return Outcome(
        sample=sample,
        model=model,
        slide=slide,
        reference=reference,
        mask=mask,
        metrics=None,
        stage=stage,
        error=error,
        log=log,
    )


def _reason(names: dict[str, str], mask: Path | None) -> tuple[str, str, Path | None]:
    """Return stage, message and log of the first stage that failed, in the order of the chain."""
    stitch_log = _existing(STITCH_LOG.format(**names))
    if mask is None and (plan := _existing(PLAN.format(**names))):
        try:
            if error := read_plan(plan).error:
                return "tile", error, stitch_log or _existing(TILE_LOG.format(**names))
        except SlidemillError as error:
            return "tile", str(error), plan
    chain = (WEIGH_LOG, TRAIN_LOG, TILE_LOG, PREDICT_LOG, STITCH_LOG) if mask is None else (EVALUATE_LOG,)
    log = None
    for pattern in chain:
        log = _existing(pattern.format(**names)) or log
        if log and (found := parse_error_line(_last_line(log))):
            return (*found, log)
    if log is None:
        return ("tile" if mask is None else "evaluate"), "was not run; see the end of the workflow's output", None
    return log.parts[1], f"ended without a result or a reason; the job may have been killed, see {log}", log


def _existing(path: str) -> Path | None:
    return Path(path) if Path(path).is_file() else None


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
