"""Predict the slides of one batch tile by tile with one network."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch

from models.base.detector import DetectionModel
from models.base.interface import SegmentationModel
from pipeline.base import paths
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import identity_of, provenance, read_json, write_json
from pipeline.networks.batch_size import remembered_batch_px
from pipeline.networks.compilation import compiled
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready, segment_slides
from pipeline.prediction.measurements import Measurements
from pipeline.prediction.results import Target
from pipeline.prediction.windows import read_batches
from pipeline.project.jobs.batch_job import BatchJob, Made, Task, batch_job
from pipeline.project.stage_settings import masks_of
from pipeline.runtime.device import computes_tf32, is_faster_in_bfloat16, prepare
from pipeline.runtime.pool import ProcessLostError, run_all
from pipeline.settings.masks import DISTANCE
from pipeline.settings.stage_sections import PredictConfig
from pipeline.tiling.memory_budget import largest_window_px
from pipeline.tiling.plan import SlidePlan, read_plans

log = logging.getLogger(__name__)

_LONG_PX = 2**28  # of slides of a job; the search takes as long as some 2**26


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
        predict = partial(
            _predict,
            job,
            model,
            path=network,
            devices=prepare(threads, devices),
            threads=threads,
            memory_mb=memory_mb,
            config=config,
            kept=kept,
        )
        try:
            predict(left)
        except SlidemillError as error:
            for task in left.values():
                job.fail(task, error)
        except Exception:
            log.warning("an error that may be of one slide; each of the others is predicted alone", exc_info=True)
            _predict_each_alone(job, left, predict)


def _predict_each_alone(job: BatchJob, left: dict[str, Task], predict: Callable[[dict[str, Task]], None]) -> None:
    for task in list(left.values()):
        try:
            predict({task.sample: task})
        except Exception as error:  # of this slide; the others go on
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
    planes = [(str(number), one) for number, one in enumerate(read_plans(plan))]
    for _ in read_batches(planes, batch_px=1, mixed=False, memory_mb=memory_mb, threads=1, ahead=0):
        pass


def _predict(
    job: BatchJob,
    model: str,
    left: dict[str, Task],
    *,
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
    samples = {}
    for sample, plans in _plans(job, left, card):
        content = [left[sample].fingerprint, devices[0].type, sorted(kept)]
        samples[sample] = _Sample.of(left[sample], plans, content, origin)
    owners = {target.sample: sample for sample, one in samples.items() for target in one.targets}
    targets = [target for one in samples.values() for target in one.targets]
    keeps = {name: name in kept for name in ("probabilities", "heads")}
    fastest = Path(paths.BATCH_PX.format(model=model))
    batch_px = _batch_px(fastest, networks[0], card, weights_sha256, targets, memory_mb)
    slides = segment_slides(networks, card, targets, **keeps, memory_mb=memory_mb, threads=threads, batch_px=batch_px)
    done = []

    def finish(sample: str) -> None:
        outcome = samples[sample].complete()
        found = asdict(outcome) | {"weights_sha256": weights_sha256, "small_area_px": small_area_px}
        job.done(left.pop(sample), Made(files=samples[sample].files, found=found), outcome.wall_s)
        done.append(outcome)

    for sample in [sample for sample, one in samples.items() if not one.targets]:  # an earlier job predicted all
        finish(sample)
    with closing(slides):
        for name, outcome in slides:
            sample = owners[name]
            if sample not in left:  # another plane of it cannot be read
                continue
            if isinstance(outcome, SlideError):
                job.fail(left.pop(sample), outcome)
            elif samples[sample].add(name, outcome):
                finish(sample)
    _log_speed(done)


def _batch_px(
    file: Path, network: SegmentationModel, card: ModelCard, weights: str, targets: list[Target], memory_mb: int
) -> int | None:
    """Return how many pixels a GPU takes at once, measured if the job is so long that this pays; else None."""
    grids = [target.plan.grid for target in targets]
    on_gpu = next(network.parameters()).device.type != "cpu"
    if not on_gpu or isinstance(network, DetectionModel) or sum(math.prod(grid.shape) for grid in grids) < _LONG_PX:
        return None
    largest = max(grids, key=lambda grid: math.prod(grid.shape))
    down, across = largest.counts
    middle = next(islice(largest.tiles(), down // 2 * across + across // 2, None))
    window = (network.in_channels, *middle.read.shape)
    return remembered_batch_px(file, network, weights, window, largest_window_px(card, memory_mb))


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """A sample that is predicted: a slide, or the planes of a stack, each like a slide of its own.

    Attributes
    ----------
    files : list of Path
        The predictions of all planes.
    targets : list of Target
        The planes that no earlier job has predicted.
    measured : dict of Measurements
        Of the planes that are done.
    """

    task: Task
    files: list[Path]
    targets: list[Target]
    measured: dict[str, Measurements]

    @classmethod
    def of(cls, task: Task, plans: list[SlidePlan], content: list[Any], origin: dict[str, Any]) -> Self:
        """Look which planes are to predict; ``content`` and the plan decide the prediction of each."""
        found = cls(task=task, files=[task.prediction(plan.plane) for plan in plans], targets=[], measured={})
        for plan, path in zip(plans, found.files, strict=True):
            name = f"{task.sample}//{path.name}" if plan.plane else task.sample  # no sample has such a name
            identity = identity_of([*content, plan.to_dict()])
            target = Target(sample=name, plan=plan, path=path, identity=identity, provenance=origin)
            if (known := found._measured_before(target)) is None:
                found.targets.append(target)
            else:
                found.measured[name] = known
        return found

    def _measured_before(self, target: Target) -> Measurements | None:
        """Return what an earlier job, which was interrupted, measured on a plane that it completed."""
        path = self.task.of_plane(paths.PLANE_MEASURED, target.plan.plane)
        if not target.plan.plane or not target.path.is_file() or not path.is_file():
            return None
        content = read_json(path)
        return Measurements.from_found(content["found"]) if content["identity"] == target.identity else None

    def add(self, name: str, found: Measurements) -> bool:
        """Add what was measured on a plane; return whether it was the last one."""
        self.measured[name] = found
        target = next(target for target in self.targets if target.sample == name)
        if target.plan.plane:
            content = {"identity": target.identity, "found": asdict(found)}
            write_json(self.task.of_plane(paths.PLANE_MEASURED, target.plan.plane), content)
        return len(self.measured) == len(self.files)

    def complete(self) -> Measurements:
        """Remove predictions that other settings of ``image.z`` and ``image.t`` left; return what was measured."""
        others = {self.task.path(paths.PREDICTION), *self.task.path(paths.PLANES).glob("*.zarr.zip")} - {*self.files}
        for path in others:
            path.unlink(missing_ok=True)
        return Measurements.of_planes(list(self.measured.values()))


def _load(path: Path, devices: list[torch.device], config: PredictConfig) -> tuple[list[SegmentationModel], ModelCard]:
    """Return the network on each device, and its card."""
    network, card = load_network(path, classes=config.classes)
    networks = [network, *(copy.deepcopy(network) for _ in devices[1:])]
    for one, device in zip(networks, devices, strict=True):
        if config.precision == "bfloat16" and not is_faster_in_bfloat16(device):
            log.warning("%s is slower in bfloat16; prediction.precision float32 is faster here", device)
        if config.precision == "tf32" and not computes_tf32(device):
            log.warning("%s has no TF32: it computes in float32", device)
        make_ready(one, device, config.precision)
    compiles = config.compile and not isinstance(network, DetectionModel)  # the number of its objects is not fixed
    return [compiled(one) if compiles else one for one in networks], card


def _plans(job: BatchJob, left: dict[str, Task], card: ModelCard) -> Iterator[tuple[str, list[SlidePlan]]]:
    """Yield the samples that can be predicted, with the plans of their planes; record why the others fail."""
    for sample, task in list(left.items()):
        try:
            plans = read_plans(task.path(paths.PLAN))
            _check_fit(sample, plans[0], card)
            if not plans[0].slide.exists():  # removed from the drop folder; its plan is all that is left
                raise SlideError(f"{plans[0].slide}: the file no longer exists")
        except SlidemillError as error:
            job.fail(left.pop(sample), error)
        else:
            yield sample, plans


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
