"""Predict the slides of one batch tile by tile with one network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from models.base.detector import DetectionModel
from models.base.interface import SegmentationModel
from pipeline.base import paths
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import identity_of, provenance
from pipeline.networks.compilation import compiled
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready, segment_slides
from pipeline.prediction.measurements import Measurements
from pipeline.prediction.results import Target
from pipeline.prediction.windows import read_batches
from pipeline.project.jobs.batch_job import BatchJob, Made, Task, batch_job
from pipeline.project.stage_settings import masks_of
from pipeline.runtime.device import computes_bfloat16, prepare
from pipeline.runtime.pool import ProcessLostError, run_all
from pipeline.settings.masks import DISTANCE
from pipeline.settings.stage_sections import PredictConfig
from pipeline.tiling.plan import SlidePlan, read_plan

log = logging.getLogger(__name__)


def run(
    *, model: str, batch: str, network: Path, threads: int, devices: int = 1, memory_mb: int, config: PredictConfig
) -> None:
    """Predict every sample of one batch; one that cannot be predicted is recorded with its reason, the others go on.

    Parameters
    ----------
    model : str
        Name of the network.
    batch : str
        Id of the batch to predict, one of those in results/slides.json.
    network : Path
        Network file (model.safetensors, with model.json beside it).
    threads : int
        CPU threads that the job may use.
    devices : int
        GPUs that the job uses; 0 means all visible ones. Without a GPU, the processor.
    memory_mb : int
        Memory that the job may use, in MB.
    config : PredictConfig
        Classes, precision, and what to keep beside labels: for the user, and for the masks.
    """
    kept = masks_of(config.masks, network).needs | ({"probabilities"} if config.probabilities else set())
    with batch_job(
        "predict",
        config,
        model=model,
        batch=batch,
        network=network,
        has_all=lambda entry: all(entry.found.get(name) for name in kept),
    ) as job:
        left = {task.sample: task for task in job.tasks}
        if not left:
            return
        if job.writer.goes_on:
            _fail_those_that_crash(job, left, memory_mb)
        try:
            _predict(job, left, network, prepare(threads, devices), threads, memory_mb, config, kept)
        except SlidemillError as error:
            for task in left.values():
                job.fail(task, error)


def _fail_those_that_crash(job: BatchJob, left: dict[str, Task], memory_mb: int) -> None:
    """Read each slide in a process of its own, and record those that crash it.

    Slides are read beside the network, in one process: one that crashes a library ends the job. The next attempt begins
    with this.
    """
    log.info("the job before this one was interrupted; %d slides are read through before they are predicted", len(left))
    tasks = list(left.values())
    calls = [partial(_read_through, task.path(paths.PLAN), memory_mb) for task in tasks]
    for number, outcome in run_all(calls, workers=1, threads=1, memory_mb=memory_mb):
        error = outcome.exception()
        if isinstance(error, ProcessLostError):  # what else may be wrong, the prediction says
            job.fail(left.pop(tasks[number].sample), error)


def _read_through(plan: Path, memory_mb: int) -> None:
    """Read all windows of a slide."""
    for _ in read_batches([("", read_plan(plan))], batch_px=1, mixed=False, memory_mb=memory_mb, threads=1, ahead=0):
        pass


def _predict(
    job: BatchJob,
    left: dict[str, Task],
    path: Path,
    devices: list[torch.device],
    threads: int,
    memory_mb: int,
    config: PredictConfig,
    kept: set[str],
) -> None:
    """Predict the samples that are ``left``; each is removed from them when its outcome is recorded."""
    networks, card = _load(path, devices, config)
    if "heads" in kept and DISTANCE not in card.heads:
        raise SlidemillError(
            f"{path}: has no head {DISTANCE!r}, which masks.instances {DISTANCE!r} needs; train it with that head, or "
            "set masks.instances to auto"
        )
    weights_sha256, small_area_px = job.network.weights, card.objects.get("small_area_px")
    origin = provenance("predict", config, weights=weights_sha256)
    targets = []
    for sample, plan in _plans(job, left, card):
        content = [left[sample].fingerprint, devices[0].type, sorted(kept), plan.to_dict()]
        target = left[sample].path(paths.PREDICTION)
        targets.append(Target(sample=sample, plan=plan, path=target, identity=identity_of(content), provenance=origin))
    keeps = {name: name in kept for name in ("probabilities", "heads")}
    slides = segment_slides(networks, card, targets, **keeps, memory_mb=memory_mb, threads=threads)
    measured = []
    with closing(slides):
        for sample, outcome in slides:
            task = left[sample]
            if isinstance(outcome, SlideError):
                job.fail(task, outcome)
            else:
                found = asdict(outcome) | {"weights_sha256": weights_sha256, "small_area_px": small_area_px}
                job.done(task, Made(files=[task.path(paths.PREDICTION)], found=found), outcome.wall_s)
                measured.append(outcome)
            del left[sample]
    _log_speed(measured)


def _load(path: Path, devices: list[torch.device], config: PredictConfig) -> tuple[list[SegmentationModel], ModelCard]:
    """Return the network on each device, and its card."""
    network, card = load_network(path, classes=config.classes)
    networks = [network, *(copy.deepcopy(network) for _ in devices[1:])]
    for one, device in zip(networks, devices, strict=True):
        if config.precision == "bfloat16" and not computes_bfloat16(device):
            log.warning("%s has no bfloat16 in hardware; prediction.precision float32 is much faster here", device)
        make_ready(one, device, config.precision)
    compiles = config.compile and not isinstance(network, DetectionModel)  # the number of its objects is not fixed
    return [compiled(one) if compiles else one for one in networks], card


def _plans(job: BatchJob, left: dict[str, Task], card: ModelCard) -> Iterator[tuple[str, SlidePlan]]:
    """Yield the samples that can be predicted; record why the others fail."""
    for sample, task in list(left.items()):
        try:
            plan = read_plan(task.path(paths.PLAN))
            _check_fit(sample, plan, card)
            if not plan.slide.exists():  # removed from the drop folder; its plan is all that is left
                raise SlideError(f"{plan.slide}: the file no longer exists")
        except SlidemillError as error:
            job.fail(left.pop(sample), error)
        else:
            yield sample, plan


def _check_fit(sample: str, plan: SlidePlan, card: ModelCard) -> None:
    """Refuse a plan of another network."""
    if (plan.grid.stride_px, len(plan.view.channels)) != (card.geometry.stride_px, card.in_channels):
        raise SlidemillError(
            f"the plan of {sample!r} (stride {plan.grid.stride_px}, {len(plan.view.channels)} channels) is not for "
            f"this network (stride {card.geometry.stride_px}, {card.in_channels} channels); correct image.channels"
        )


def _log_speed(slides: list[Measurements]) -> None:
    """Log the speed of the job, and how much its tiles disagree."""
    wall_s = sum(slide.wall_s for slide in slides)
    if not wall_s:
        return
    pixels = sum(slide.pixels for slide in slides)
    parts = [(slide.network_s, slide.reading_s, slide.writing_s) for slide in slides]
    log.info(
        "%.2f Mpx in %.1f s, %.2f Mpx/s: %.0f %% of it in the network, %.0f %% waiting to read, %.0f %% to write",
        pixels / 1e6,
        wall_s,
        pixels / 1e6 / wall_s,
        *(100 * sum(seconds) / wall_s for seconds in zip(*parts, strict=True)),
    )
    if compared_px := sum(slide.compared_px for slide in slides):
        share = 100 * sum(slide.differing_px for slide in slides) / compared_px
        log.info("tile mismatch: windows label %.2f %% of their shared pixels differently", share)
