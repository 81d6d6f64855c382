"""Compare the masks of one batch with their references: metrics, and small pictures of the errors."""

from __future__ import annotations

import csv
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.base import paths
from pipeline.base.arrays import Array, LazyArray, below_each_other
from pipeline.base.files import finite, replacing, sha256, spreadsheet_text
from pipeline.masks.mask_file import open_mask
from pipeline.metrics.evaluation import LabelledImage, copy_mask, copy_reference, measure, open_reference
from pipeline.prediction.mask_stack import stack_of_masks
from pipeline.prediction.store import open_prediction
from pipeline.project.jobs.batch_job import Made, Task, batch_job
from pipeline.project.stage_settings import view_of
from pipeline.report.pictures import pictures_of_errors, write_pictures
from pipeline.settings.stage_sections import EvaluateConfig, LabelConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.labels import warnings_of
from pipeline.slides.planes import Plane
from pipeline.slides.regions import union_of
from pipeline.slides.slide import planes_of
from pipeline.tiling.plan import read_plans


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


class _Both(NamedTuple):
    """A reference and a mask, or a plane of both."""

    truth: LabelledImage
    predicted: LabelledImage


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is known of a mask and its reference, or of a plane of both; ``pictures`` are drawn of one plane only."""

    pixel_size_um: PixelSize | None
    warnings: list[str]
    pictures: dict[str, bytes]


def _evaluate(task: Task, *, config: EvaluateConfig) -> Made:
    labels, output, reference = config.labels, task.path(paths.METRICS), Path(task.slide.reference or "")
    view = view_of(config.image, task.slide.row)
    planes = planes_of(Path(task.slide.slide), view, memory_mb=task.memory_mb)
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(output))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=temporary.parent)))
        both, seen = _copy_planes(planes, task, labels, scratch)
        metrics = measure(
            both.truth,
            both.predicted,
            classes=labels.classes,
            config=config.metrics,
            pixel_size_um=seen.pixel_size_um,
            probabilities=_probabilities_of(planes, task, stack) if config.probabilities else None,
        )
        mask_sha256 = task.before.found["mask_sha256"] if task.before else ""
        origin = {"version": __version__, "mask_sha256": mask_sha256, "reference_sha256": sha256(reference)}
        row = {"sample": spreadsheet_text(task.sample), "model": task.model} | metrics | origin
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")  # a table of pandas for one row takes as long as its metrics
            writer.writerow(row)
            writer.writerow(finite(row).values())
    pictures = write_pictures(seen.pictures, model=task.model, sample=task.sample)
    return Made(files=[output, *pictures], found={"metrics": finite(metrics | origin), "warnings": seen.warnings})


def _copy_planes(planes: list[Plane], task: Task, labels: LabelConfig, scratch: Path) -> tuple[_Both, _Seen]:
    """Copy a mask and its reference into a folder; those of a stack plane by plane."""
    if len(planes) == 1:
        return _copy(planes[0], task, labels, scratch, drawn=True)
    found: list[_Seen] = []
    counts = [0, 0]

    def make(plane: Plane, _: ExitStack, folder: Path) -> tuple[dict[str, Array], None]:
        both, seen = _copy(plane, task, labels, folder, drawn=len(found) == len(planes) // 2)
        found.append(seen)
        counts[:] = (before + one.count for before, one in zip(counts, both, strict=True))
        images = {"true classes": both.truth.classes, "true instances": both.truth.objects}
        return images | {"classes": both.predicted.classes, "instances": both.predicted.objects}, None

    images, _ = stack_of_masks((partial(make, plane) for plane in planes), (len(planes),), scratch=scratch)
    truth = LabelledImage.of_stack(images["true classes"], images["true instances"], counts[0])
    predicted = LabelledImage.of_stack(images["classes"], images["instances"], counts[1])
    seen = _Seen(
        pixel_size_um=found[0].pixel_size_um,
        warnings=list(dict.fromkeys(warning for one in found for warning in one.warnings)),
        pictures=next(one.pictures for one in found if one.pictures),
    )
    return _Both(truth, predicted), seen


def _copy(plane: Plane, task: Task, labels: LabelConfig, scratch: Path, *, drawn: bool) -> tuple[_Both, _Seen]:
    """Copy a plane of the mask and of the reference into a folder."""
    slide, reference, memory_mb = Path(task.slide.slide), Path(task.slide.reference or ""), task.memory_mb
    with open_mask(task.path(paths.MASK), memory_mb=memory_mb, plane=plane) as predicted:
        shape = predicted.slide.shape
        with open_reference(reference, shape, slide, labels, memory_mb=memory_mb, plane=plane) as truth:
            both = _Both(
                truth=copy_reference(truth, labels, scratch / "truth", inside=_inside(task, plane, shape)),
                predicted=copy_mask(predicted.classes, predicted.instances, scratch / "predicted"),
            )
            return both, _Seen(
                pixel_size_um=predicted.slide.pixel_size_um,
                warnings=[f"its reference: {warning}" for warning in warnings_of(truth, labels)],
                pictures=pictures_of_errors(truth, predicted.slide, labels) if drawn else {},
            )


def _probabilities_of(planes: list[Plane], task: Task, stack: ExitStack) -> Array:
    """Return the probabilities of a prediction, open as long as ``stack``; of a stack, each plane where it is read."""
    (first, *others) = (task.prediction(plane.place) for plane in planes)
    probabilities: Array = stack.enter_context(open_prediction(first))["probabilities"]  # type: ignore[assignment]
    if not others:
        return probabilities

    def read(path: Path, *key: Any) -> NDArray[Any]:
        with open_prediction(path) as prediction:  # not all at a time, which may be more than can be open
            return np.asarray(prediction["probabilities"][key])  # type: ignore[index]

    shape, dtype = probabilities.shape, probabilities.dtype
    return below_each_other([LazyArray(shape, dtype, partial(read, path)) for path in (first, *others)])


def _inside(task: Task, plane: Plane, shape: tuple[int, int]) -> Array | None:
    """Return where a mask that is cut to regions was computed; None of all others."""
    if not task.slide.is_cut:
        return None
    plans = read_plans(task.path(paths.PLAN))
    return union_of(next(plan.polygons for plan in plans if plan.plane == plane.place), shape)
