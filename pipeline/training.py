"""The training loop, read top to bottom.

Patches in, a trained network and its history out. It ends after a number of steps or a time, whichever comes first,
and keeps the weights that were best on the held-back images.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.geometry import Geometry
from models.interface import SegmentationModel
from pipeline.device import computes_bfloat16
from pipeline.errors import SlidemillError
from pipeline.inference import predict_image
from pipeline.losses import SegmentationLoss
from pipeline.metrics.overlap import confusion, mean_over_classes, per_class
from pipeline.model_config import SettledConfig
from pipeline.patches import Annotated, RandomPatches

log = logging.getLogger(__name__)

_WARM_UP = 0.05  # share of the training in which the learning rate rises
_LARGEST_GRADIENT = 1.0
_VALIDATION_TILE_PX = 512

Record = dict[str, float]


@dataclass(kw_only=True)
class Best:
    """The best state so far, and what it scored; or the last one, where the held-back images must choose nothing."""

    last: bool = False
    score: float = -math.inf
    state: dict[str, Tensor] | None = None
    record: Record | None = None

    def offer(self, network: SegmentationModel, record: Record) -> None:
        """Keep the state of the network if it scores higher than the best before it, or is the later one."""
        if self.last or record["dice_mean"] > self.score:
            self.score, self.record = record["dice_mean"], record
            self.state = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def train_network(
    network: SegmentationModel,
    *,
    training: list[Annotated],
    validation: list[Annotated],
    classes: list[str],
    config: SettledConfig,
    on_record: Callable[[list[Record]], None],
) -> Record:
    """Train ``network`` in place; it ends up with its best weights, in evaluation mode, on the processor.

    Parameters
    ----------
    network : SegmentationModel
        With fresh weights.
    training, validation : list of Annotated
        Neither empty, of different files.
    classes : list of str
        Names of the classes, for the history.
    config : SettledConfig
        Loss, patches, steps, time.
    on_record : callable
        Called with the whole history after each validation.

    Returns
    -------
    dict
        The record of the best weights: step, elapsed_s, learning_rate, loss, and Dice on the held-back images per
        class and as ``dice_mean``.

    Raises
    ------
    SlidemillError
        If the loss is no number, or a patch does not suit the network.
    """
    check_patch(network.geometry, config.patch_px)
    if config.batch_size < network.least_batch:
        raise SlidemillError(f"batch_size must be at least {network.least_batch} for {network.name}")
    fabric = _fabric(config)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(network, config.encoder_rate))
    model, optimizer = fabric.setup(network, optimizer)
    model.mark_forward_method("logits_to_train")
    batches, loss_of = _batches(fabric, training, config), SegmentationLoss(config.loss)
    _to_training(network, config)
    best, history, losses = Best(last=bool(config.folds)), list[Record](), list[float]()
    clock, is_over = _Clock(max_steps=config.max_steps, max_seconds=60 * config.max_minutes), False
    with tqdm(total=100, unit="%", disable=None, desc="train") as bar:
        while not is_over:
            rate = config.learning_rate * schedule(clock.fraction(ahead=1))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["relative_rate"]
            image, *truth = next(batches)
            heads = model.logits_to_train(_network_input(image, network.geometry))
            loss = _loss_of_heads(heads, truth, loss_of, network.geometry)
            losses.append(clock.count(loss.item()))
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=_LARGEST_GRADIENT, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
            is_over = clock.fraction() >= 1
            if clock.step % config.validate_every == 0 or is_over:
                record = {"step": clock.step, "elapsed_s": clock.elapsed_s(), "learning_rate": rate}
                record |= {"loss": float(np.mean(losses))} | validate(network, validation, classes)
                _to_training(network, config)
                losses.clear()
                history.append(record)
                best.offer(network, record)
                on_record(history)
                log.info("%s", "  ".join(f"{name} {value:.4g}" for name, value in record.items()))
            bar.update(round(100 * clock.fraction()) - bar.n)
    return _restore(network, best)


def validate(network: SegmentationModel, images: list[Annotated], classes: list[str]) -> Record:
    """Return the Dice per class over all pixels of ``images``, predicted as slides are, and its mean.

    The network is left in evaluation mode.
    """
    network.eval()
    counts = sum(
        confusion(
            image.classes,
            predict_image(network, image.image, num_classes=len(classes), tile_px=_VALIDATION_TILE_PX),
            num_classes=len(classes),
        )
        for image in images
    )
    scores = per_class("dice", np.asarray(counts))
    record = {f"dice_{name}": float(score) for name, score in zip(classes, scores, strict=True)}
    return record | {"dice_mean": mean_over_classes(scores)}


def parameter_groups(network: SegmentationModel, encoder_rate: float) -> list[dict[str, Any]]:
    """Return the parameters to learn, those of the encoder apart where they learn more slowly; frozen ones left out."""
    encoder = {id(parameter) for parameter in network.encoder.parameters()} if encoder_rate < 1 else set[int]()
    rest = [parameter for parameter in network.parameters() if id(parameter) not in encoder]
    slow = [parameter for parameter in network.parameters() if id(parameter) in encoder]
    groups = [{"params": rest, "relative_rate": 1.0}, {"params": slow, "relative_rate": encoder_rate}]
    return [group for group in groups if group["params"] and group["relative_rate"]]


def _to_training(network: SegmentationModel, config: SettledConfig) -> None:
    """Switch to training mode; a frozen encoder keeps its statistics and needs no gradients."""
    network.train()
    if config.encoder_rate == 0:
        network.encoder.eval().requires_grad_(requires_grad=False)


def _loss_of_heads(
    heads: list[tuple[float, Tensor]], truth: list[Tensor], loss_of: SegmentationLoss, geometry: Geometry
) -> Tensor:
    """Return the weighted sum of the losses of all heads; ``truth`` is target and weights."""
    losses = [
        weight * loss_of(logits, *(_beneath(logits, part, geometry) for part in truth)) for weight, logits in heads
    ]
    return torch.stack(losses).sum()


def schedule(fraction: float) -> float:
    """Return the learning rate relative to its peak: a linear rise, then a cosine down to 0.

    Parameters
    ----------
    fraction : float
        Of the training that is done, in [0, 1].
    """
    rise = min(1.0, fraction / _WARM_UP)
    return rise * 0.5 * (1 + math.cos(math.pi * fraction))


def check_patch(geometry: Geometry, patch_px: int) -> None:
    """Raise :class:`SlidemillError` where a patch is not a multiple of the stride, or leaves no output."""
    stride, least = geometry.stride_px, 2 * geometry.margin_px + geometry.stride_px
    if patch_px % stride:
        raise SlidemillError(f"patch_px must be a multiple of the network's stride of {stride}, got {patch_px}")
    if patch_px < least:
        raise SlidemillError(f"patch_px must be at least {least} for this network, got {patch_px}")


@dataclass(kw_only=True)
class _Clock:
    """How far the training is, by steps and by time."""

    max_steps: int
    max_seconds: float
    step: int = 0

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    def count(self, loss: float) -> float:
        """Count one step and return its loss, if that is a number."""
        self.step += 1
        if not math.isfinite(loss):
            raise SlidemillError(f"the loss is {loss} at step {self.step}; lower learning_rate, or train in float32")
        return loss

    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def fraction(self, *, ahead: int = 0) -> float:
        """Return the share of the training that is done, or will be ``ahead`` steps from now.

        One step ahead, steps outrun the time that has passed wherever they are what ends the training, so that such
        a training repeats itself.
        """
        return min(1.0, max((self.step + ahead) / self.max_steps, self.elapsed_s() / self.max_seconds))


def _fabric(config: SettledConfig) -> Fabric:
    fabric = Fabric(accelerator="auto", devices=1)
    wanted = config.precision
    if wanted == "auto":
        wanted = "bfloat16" if computes_bfloat16(fabric.device) else "float32"
    log.info("training on %s in %s", fabric.device, wanted)
    return Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if wanted == "bfloat16" else "32-true")


def _batches(
    fabric: Fabric, training: list[Annotated], config: SettledConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return endless batches on the device; on the processor they are made in between, elsewhere beside it."""
    patches = RandomPatches(training, patch_px=config.patch_px, config=config.augmentation, seed=config.seed)
    workers = 0 if fabric.device.type == "cpu" else torch.get_num_threads()
    loader = fabric.setup_dataloaders(DataLoader(patches, batch_size=config.batch_size, num_workers=workers))
    return iter(loader)  # type: ignore[arg-type]


def _network_input(image: Tensor, geometry: Geometry) -> Tensor:
    rows, columns = (geometry.input_px(length) for length in image.shape[-2:])
    return image[..., :rows, :columns].contiguous(memory_format=torch.channels_last)


def _beneath(logits: Tensor, part: Tensor, geometry: Geometry) -> Tensor:
    """Cut from a patch what the logits are of: all of it, or less the margin of valid convolutions."""
    rows, columns = (slice(geometry.margin_px, geometry.margin_px + length) for length in logits.shape[-2:])
    return part[..., rows, columns]


def _restore(network: SegmentationModel, best: Best) -> Record:
    if best.state is None or best.record is None:
        raise SlidemillError("no validation gave a Dice; are the held-back label images empty?")
    network.cpu().load_state_dict(best.state)
    network.eval()
    return best.record
