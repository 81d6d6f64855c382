"""The training loop.

Patches go in, a trained network and its history come out. Training ends after a number of steps or a time, whichever
comes first, and keeps the weights of its end, averaged over its last steps; with `patience`, those that scored best on
the held-back images. An interrupted training continues from its last validation.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.base.detector import DetectionModel
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing
from pipeline.metrics.names import HEADLINE
from pipeline.metrics.overlap import confusion, mean_over_classes, per_class
from pipeline.prediction.forward import predict_regions
from pipeline.runtime.device import is_out_of_memory
from pipeline.settings.networks import ResolvedConfig
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.batches import Batches, training_batches
from pipeline.training.history import History, overlay
from pipeline.training.optimization import schedule
from pipeline.training.processes import gather, run_processes, start_fabric
from pipeline.training.state import STATE, HistoryRow, TrainingState, read_state, write_state
from pipeline.training.step import Learner, Losses, NotFiniteError

log = logging.getLogger(__name__)

_VALIDATION_TILE_PX = 512
_VALIDATION_SHARE = 0.1  # largest share of the computation
_FORWARD_SHARE = 1 / 3  # of the cost of a training step: the gradients take the other two thirds
_SLOW_START = 0.02  # of the time limit, by which the first steps may be late


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, on which images, and where its files go.

    Attributes
    ----------
    network
        With its initial weights.
    training, validation
        Neither empty, of different files.
    classes
        Names of the classes, for the history.
    config
        Loss, patches, steps, time.
    identity
        Hash of data and settings, without the limits of steps and time, and patience. Only a state with the same
        identity is continued.
    folder
        For the state, the history, TensorBoard events, and a batch that failed.
    """

    network: SegmentationModel
    training: list[Annotated]
    validation: list[Annotated]
    classes: list[str]
    config: ResolvedConfig
    identity: str
    folder: Path

    @property
    def history(self) -> Path:
        """The CSV that grows with each validation."""
        return self.folder / "history.csv"


def train_network(task: Task, devices: list[torch.device]) -> HistoryRow:
    """Train the network of ``task`` in place; it ends with the weights to keep, in evaluation mode, on the CPU.

    The state of the training stays in ``task.folder``, so that a finished training can go on to higher limits.

    Parameters
    ----------
    devices : list of torch.device
        One process trains on each; they share every batch.

    Returns
    -------
    dict
        The row of the history that belongs to these weights: step, elapsed_s, learning_rate, loss, ``loss_PART`` of
        each head or part, waiting, steps_per_s, and Dice on the held-back images per class, as ``dice_mean`` and as
        ``foreground_dice``.

    Raises
    ------
    SlidemillError
        If the loss is not finite, a patch does not fit the network, or a batch cannot be divided among the devices.
    """
    if isinstance(task.network, DetectionModel) and len(devices) > 1:
        log.info("%s trains on one device: its losses are not shared among processes", task.network.name)
        devices = devices[:1]
    if task.config.batch_size % len(devices):
        raise SlidemillError(
            f"batch_size {task.config.batch_size} cannot be shared among {len(devices)} devices; "
            f"make it a multiple of {len(devices)}, or ask for fewer devices"
        )
    fabric = start_fabric(devices, task.config.precision)
    run_processes(fabric, _train, task)
    state = read_state(task.folder / STATE, task.identity)
    if state is None or state.chosen is None:
        raise SlidemillError("no validation gave a Dice; are the held-back label images empty?")
    task.network.cpu().load_state_dict(state.tensors["kept"])
    task.network.eval()
    return state.chosen


def _train(fabric: Fabric, task: Task) -> None:
    """Train in this process; the first process also validates and writes files."""
    config = task.config
    learner = Learner(fabric, task.network, config)
    state = _earlier_state(task)
    if state.step:
        log.info("continuing after step %d, %.0f s of training", state.step, state.elapsed_s)
        learner.load(state)
    batches = training_batches(fabric, task.training, config, first=state.step)
    clock = Clock(max_steps=config.max_steps, max_seconds=config.max_seconds, earlier_s=state.elapsed_s)
    validator = _Validator(task, learner, state, batches, clock) if fabric.is_global_zero else None
    interval = validation_interval(config, sum(math.prod(image.shape) for image in task.validation))
    is_over = clock.fraction(state.step) >= 1 or _is_out_of_patience(state, config)
    with tqdm(total=100, unit="%", disable=None, desc="train") as bar:
        while not is_over:
            rate = config.learning_rate * schedule(clock.fraction(state.step + 0.5), config.optimizer)
            losses = _step(fabric, learner, next(batches), task, rate=rate, number=state.step)
            state.step += 1
            clock.read(fabric)
            is_over = clock.fraction(state.step) >= 1
            if validator:
                validator.losses.append(losses)
            if state.step % interval == 0 or is_over:
                if validator:
                    validator.validate(rate)
                clock.read(fabric)
                is_over = fabric.broadcast(clock.fraction(state.step) >= 1 or _is_out_of_patience(state, config))
            bar.update(round(100 * clock.fraction(state.step)) - bar.n)
    if validator:
        validator.history.close()


def _earlier_state(task: Task) -> TrainingState:
    """Return the state to go on from: of the same training under limits no higher than these; else a new one."""
    config = task.config
    limits = [config.max_steps, config.max_seconds, config.patience or math.inf]
    state = read_state(task.folder / STATE, task.identity)
    if state and any(now < then for now, then in zip(limits, state.limits, strict=True)):
        log.info("an earlier training went on for longer: training starts from the beginning")
        state = None
    state = state or TrainingState()
    state.limits = limits
    return state


def _step(fabric: Fabric, learner: Learner, batch: list[Tensor], task: Task, *, rate: float, number: int) -> Losses:
    """Make a step and return its losses; raise :class:`SlidemillError` if it is not finite, or memory runs out."""
    try:
        return learner.step(batch, rate=rate, number=number)
    except NotFiniteError as error:
        raise SlidemillError(f"{error}; {_save_failed_batch(fabric, batch, task.folder)}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SlidemillError(
            f"a step of {task.config.batch_size} patches of {task.config.patch_px} px does not fit into the memory of "
            f"{fabric.device}; lower batch_size or patch_px, or training.memory_mb if they are auto"
        ) from error


class _Validator:
    """Validates in the first process, and writes the state and the history."""

    def __init__(self, task: Task, learner: Learner, state: TrainingState, batches: Batches, clock: Clock) -> None:
        self._task, self._learner, self._state, self._batches, self._clock = task, learner, state, batches, clock
        self.losses: list[Losses] = []
        self.history = History(task.history, task.folder, state.step)
        if state.history:
            self.history.write(state.history)
        self._since_s, self._waited_s = clock.elapsed_s(), 0.0

    def validate(self, rate: float) -> None:
        """Validate; write the state, then the history."""
        elapsed_s, waited_s = self._clock.elapsed_s(), self._batches.waited_s
        lasted_s = elapsed_s - self._since_s
        row = {
            "step": self._state.step,
            "max_steps": self._task.config.max_steps,
            "elapsed_s": elapsed_s,
            "learning_rate": rate,
            **{name: float(np.mean([losses[name] for losses in self.losses])) for name in self.losses[0]},
            "waiting": (waited_s - self._waited_s) / lasted_s,
            "steps_per_s": len(self.losses) / lasted_s,
        }
        with self._learner.autocast():
            scores, picture = validate(self._learner.validated, self._task.validation, self._task.classes)
        row |= scores
        self._state.record(self._learner.validated, row, only_better=self._task.config.patience is not None)
        self._state.elapsed_s = self._clock.elapsed_s()
        self._learner.save(self._state)
        write_state(self._task.folder / STATE, self._task.identity, self._state)
        self.history.write(self._state.history, picture)
        log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        self.losses.clear()
        self._since_s, self._waited_s = self._clock.elapsed_s(), waited_s
        self._clock.keep_for_validation(self._since_s - elapsed_s)


def validate(
    network: SegmentationModel, images: list[Annotated], classes: list[str]
) -> tuple[HistoryRow, NDArray[np.uint8]]:
    """Return the Dice per class over all pixels of ``images``, and its means; also a picture of the first image.

    Images are read, predicted and counted tile by tile, as slides are; the picture is the tile in the middle. The
    network is left in evaluation mode.
    """
    network.eval()
    counts, pictures = np.zeros((len(classes), len(classes)), np.int64), list[NDArray[np.uint8]]()
    for image in images:
        tiles = predict_regions(network, image.image, num_classes=len(classes), tile_px=_VALIDATION_TILE_PX)
        for region, predicted in tiles:
            truth = image.classes[region.slices]
            counts += confusion(truth, predicted, num_classes=len(classes))
            if not pictures and region.holds(image.shape[0] // 2, image.shape[1] // 2):
                pictures.append(overlay(image.image[:, *region.slices], truth, predicted))
    scores = per_class("dice", counts)
    row = {f"dice_{name}": float(score) for name, score in zip(classes, scores, strict=True)}
    return row | {"dice_mean": mean_over_classes(scores), HEADLINE: mean_over_classes(scores[1:])}, pictures[0]


def validation_interval(config: ResolvedConfig, validation_px: int) -> int:
    """Return the steps between two validations: as configured, or more, so that they take at most a tenth of the work.

    It is computed from numbers of pixels (``validation_px`` of all held-back images), not measured, so that a training
    is repeatable.
    """
    step_px = config.batch_size * config.patch_px**2
    validation = _FORWARD_SHARE * validation_px / step_px  # in steps
    return max(config.validate_every, math.ceil(validation * (1 - _VALIDATION_SHARE) / _VALIDATION_SHARE))


@dataclass(kw_only=True)
class Clock:
    """Progress of a training, by steps and by time, including the time of interrupted runs.

    Of the time, as much is left for the last validation as the longest one took so far.
    """

    max_steps: int
    max_seconds: float
    earlier_s: float = 0.0

    def __post_init__(self) -> None:
        self._start, self._read_s = time.monotonic(), self.earlier_s
        self._validation_s, self._kept_s = 0.0, 0.0

    def elapsed_s(self) -> float:
        """Return the time since the training began."""
        return self.earlier_s + time.monotonic() - self._start

    def keep_for_validation(self, lasted_s: float) -> None:
        """Keep the time of a validation in the first process; all keep it from the next :meth:`read` on."""
        self._validation_s = max(self._validation_s, lasted_s)

    def read(self, fabric: Fabric) -> None:
        """Take the time of the first process in all processes."""
        self._read_s, self._kept_s = fabric.broadcast((self.elapsed_s(), self._validation_s))

    def fraction(self, step: float) -> float:
        """Return the share of the training that is done after ``step`` steps, a half being the middle of a step.

        Without a limit of time, or far from it, this depends on the step alone: such a training is repeatable. Near the
        start, time may be slightly ahead, since the first steps are slow.
        """
        left_s = self.max_seconds - self._kept_s
        by_steps, by_time = step / self.max_steps, self._read_s / left_s if left_s > 0 else 1.0
        return min(1.0, by_time if by_time >= min(1.0, by_steps + _SLOW_START) else by_steps)


def _is_out_of_patience(state: TrainingState, config: ResolvedConfig) -> bool:
    return config.patience is not None and state.validations_since_best() >= config.patience


def _save_failed_batch(fabric: Fabric, batch: list[Tensor], folder: Path) -> str:
    """Save a batch whose loss is not finite; return what to do about it."""
    parts = [gather(part) for part in batch]
    path = folder / "failed-batch.npz"
    if fabric.is_global_zero:
        image, target, maps = (part.cpu().numpy() for part in parts)
        with replacing(path) as temporary:
            np.savez(temporary, image=image, target=target, maps=maps)
    return f"the batch is in {path}; lower learning_rate, or train in float32"
