"""Compare the masks of one batch with their references: metrics, and small pictures of the errors."""

from __future__ import annotations

import csv
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from pipeline import __version__
from pipeline.base import paths
from pipeline.base.arrays import Array
from pipeline.base.files import finite, replacing, sha256, spreadsheet_text
from pipeline.masks.mask_file import open_mask
from pipeline.metrics.evaluation import copy_mask, copy_reference, measure, open_reference
from pipeline.prediction.store import open_prediction
from pipeline.project.jobs.batch_job import Made, Task, batch_job
from pipeline.project.stage_settings import view_of
from pipeline.report.pictures import pictures_of_errors, write_pictures
from pipeline.settings.stage_sections import EvaluateConfig
from pipeline.slides.labels import warnings_of
from pipeline.slides.regions import union_of
from pipeline.tiling.plan import read_plan


def run(*, model: str, batch: str, threads: int, memory_mb: int, config: EvaluateConfig) -> None:
    """Write the metrics of the samples of one batch that have a reference.

    Parameters
    ----------
    model : str
        Name of the network in the configuration.
    batch : str
        Batch of the run, one of those in results/slides.json.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : EvaluateConfig
        Classes, how references are read, and which metrics to compute.
    """
    with batch_job("evaluate", config, model=model, batch=batch) as job:
        job.work_through(partial(_evaluate, config=config), threads=threads, memory_mb=memory_mb)


def _evaluate(task: Task, *, config: EvaluateConfig) -> Made:
    labels, output = config.labels, task.path(paths.METRICS)
    slide, reference = Path(task.slide.slide), Path(task.slide.reference or "")
    view = view_of(config.image, task.slide.row)
    with ExitStack() as stack:
        predicted = stack.enter_context(open_mask(task.path(paths.MASK), memory_mb=task.memory_mb))
        shape = predicted.slide.shape
        truth = stack.enter_context(
            open_reference(reference, shape, slide, labels, memory_mb=task.memory_mb, view=view)
        )
        temporary = stack.enter_context(replacing(output))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=temporary.parent)))
        probabilities: Array | None = None
        if config.probabilities:
            prediction = stack.enter_context(open_prediction(task.path(paths.PREDICTION)))
            probabilities = prediction["probabilities"]  # type: ignore[assignment]
        inside = _inside(task, shape)
        warnings = [f"its reference: {warning}" for warning in warnings_of(truth, labels)]
        metrics = measure(
            copy_reference(truth, labels, scratch / "truth", inside=inside),
            copy_mask(predicted.classes, predicted.instances, scratch / "predicted"),
            classes=labels.classes,
            config=config.metrics,
            pixel_size_um=predicted.slide.pixel_size_um,
            probabilities=probabilities,
        )
        drawn = pictures_of_errors(truth, predicted.slide, labels)
        mask_sha256 = task.before.found["mask_sha256"] if task.before else ""
        origin = {"version": __version__, "mask_sha256": mask_sha256, "reference_sha256": sha256(reference)}
        row = {"sample": spreadsheet_text(task.sample), "model": task.model} | metrics | origin
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")  # a table of pandas for one row takes as long as its metrics
            writer.writerow(row)
            writer.writerow(finite(row).values())
    pictures = write_pictures(drawn, model=task.model, sample=task.sample)
    return Made(files=[output, *pictures], found={"metrics": finite(metrics | origin), "warnings": warnings})


def _inside(task: Task, shape: tuple[int, int]) -> Array | None:
    """Return where a mask that is cut to regions was computed; None of all others."""
    return union_of(read_plan(task.path(paths.PLAN)).polygons, shape) if task.slide.is_cut else None
