"""One step of a training: forward pass, loss, gradients, and the update of the weights."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from models.base.detector import DetectionModel
from models.base.geometry import Geometry
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import ResolvedConfig
from pipeline.training.losses import SegmentationLoss
from pipeline.training.losses.heads import HeadLosses
from pipeline.training.optimization import average_of, build_optimizer, drop_frozen_gradients, set_mode, set_rate
from pipeline.training.processes import gather, processes, share_batch_norm
from pipeline.training.state import TrainingState

Losses = dict[str, float]  # ``loss``, and ``loss_PART`` of each head before its weight, or of each part


class NotFiniteError(SlidemillError):
    """The loss of a step, or its gradient, is NaN or infinite; the weights are those before the step."""


class Learner:
    """A network on its device with its loss and its optimizer.

    Parameters
    ----------
    fabric : Fabric
        Device, precision and processes.
    network : SegmentationModel
        Changed in place.
    config : ResolvedConfig
        Loss, optimizer, and what is frozen.

    Raises
    ------
    SlidemillError
        If the patches or the batch do not fit the network.
    """

    def __init__(self, fabric: Fabric, network: SegmentationModel, config: ResolvedConfig) -> None:
        check_patch(network.geometry, config.patch_px)
        if config.batch_size < network.least_batch:
            raise SlidemillError(f"batch_size must be at least {network.least_batch} for {network.name}")
        if processes() > 1:
            share_batch_norm(network)
        network.to(memory_format=torch.channels_last)
        set_mode(network, config, 0)
        self._fabric, self._network, self._config = fabric, network, config
        self._optimizer = build_optimizer(network, config)
        self._model, self._stepper = fabric.setup(network, self._optimizer)
        self._detects = isinstance(network, DetectionModel)
        self._model.mark_forward_method("losses" if self._detects else "logits_to_train")
        self._loss_of, self._head_losses_of = SegmentationLoss(config.loss), HeadLosses(config.loss, network.heads)
        self._average = average_of(network, config.optimizer.average)

    @property
    def validated(self) -> SegmentationModel:
        """The network that is validated and kept: that of the averaged weights, or the trained one itself."""
        network: SegmentationModel = self._average.module if self._average else self._network  # type: ignore[assignment]
        return network

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which networks compute in the precision of the training.

        Fabric enters it for ``forward`` only, and not for other methods of a network in a single process.
        """
        return self._fabric.autocast()

    def step(self, batch: list[Tensor], *, rate: float, number: int) -> Losses:
        """Make step ``number`` (from 0) at a learning rate; return the losses of the whole batch.

        ``batch`` is image (N, channels, P, P), target (N, P, P) and maps (N, 1 + heads, P, P) of this process.

        Raises
        ------
        NotFiniteError
            If the loss or its gradient is NaN or infinite.
        """
        seed = np.random.SeedSequence((self._config.seed, number, self._fabric.global_rank))
        torch.manual_seed(int(seed.generate_state(1)[0]))  # of dropout
        set_mode(self._network, self._config, number)
        set_rate(self._optimizer, rate, number)
        image, *truth = batch
        loss, parts = self._loss_of_objects(image, *truth) if self._detects else self._loss(image, truth)
        self._fabric.backward(loss)
        drop_frozen_gradients(self._optimizer, number)
        largest = self._config.optimizer.largest_gradient
        norm = self._fabric.clip_gradients(self._model, self._stepper, max_norm=largest, error_if_nonfinite=False)
        value, gradient = loss.item(), norm.item() if norm is not None else 0.0
        if self._config.precision == "float16":  # the scaler skips steps whose gradient overflows
            gradient = 0.0
        if not math.isfinite(value + gradient):
            raise NotFiniteError(f"the loss is {value:g}, its gradient {gradient:g} at step {number + 1}")
        self._stepper.step()
        self._stepper.zero_grad()
        if self._average:
            self._average.update_parameters(self._network)
        return {"loss": value} | {f"loss_{name}": part.item() for name, part in parts.items()}

    def save(self, state: TrainingState) -> None:
        """Store all tensors of the training in a state."""
        state.capture(self._network, self._optimizer, self._average, self._fabric.strategy.precision.state_dict())

    def load(self, state: TrainingState) -> None:
        """Continue from a state."""
        state.restore(self._network, self._optimizer, self._average)
        self._fabric.strategy.precision.load_state_dict(state.scaler)

    def _loss_of_objects(self, image: Tensor, classes: Tensor, maps: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of a network that detects objects, and each of them."""
        with self.autocast():
            parts: dict[str, Tensor] = self._model.losses(image, classes, maps[:, -1])
        return torch.stack([part.float() for part in parts.values()]).sum(), parts

    def _loss(self, image: Tensor, truth: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses of all outputs, over the batches of all processes.

        Also the loss of each head in the first output.
        """
        geometry = self._network.geometry
        rows, columns = (geometry.input_px(length) for length in image.shape[-2:])
        with self.autocast():
            outputs = self._model.logits_to_train(
                image[..., :rows, :columns].contiguous(memory_format=torch.channels_last)
            )
        truth = [gather(part) for part in truth]
        losses, of_heads = [], []
        for weight, part in outputs:
            output = gather(part)
            target, maps = (_crop_to_logits(whole, output, geometry) for whole in truth)
            logits, channels = output.tensor_split([self._network.num_classes], dim=1)
            of_parts, parts = self._head_losses_of(channels, maps[:, 1:], target)
            losses.append(weight * (self._loss_of(logits, target, maps[:, 0]) + of_parts))
            of_heads.append(parts)
        return torch.stack(losses).sum(), dict(zip(self._network.heads, of_heads[0], strict=True))


def check_patch(geometry: Geometry, patch_px: int) -> None:
    """Raise :class:`SlidemillError` if a patch is no multiple of the stride, leaves no output or holds no object."""
    stride, least = geometry.stride_px, 2 * geometry.margin_px + geometry.stride_px
    if patch_px % stride:
        raise SlidemillError(f"patch_px must be a multiple of the network's stride of {stride}, got {patch_px}")
    if patch_px < least:
        raise SlidemillError(f"patch_px must be at least {least} for this network, got {patch_px}")
    if geometry.object_px and patch_px < geometry.object_px:
        raise SlidemillError(
            f"patch_px is {patch_px}, the largest object {geometry.object_px} px wide or high; raise patch_px, or set "
            "options.largest_px if larger objects may be missed"
        )


def _crop_to_logits(part: Tensor, logits: Tensor, geometry: Geometry) -> Tensor:
    """Return the part of a patch that the logits cover: all of it, less the margin of valid convolutions."""
    rows, columns = (slice(geometry.margin_px, geometry.margin_px + length) for length in logits.shape[-2:])
    return part[..., rows, columns]
