"""One step of a training: a batch through the network, its loss, and the weights moved."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from models.base.geometry import Geometry
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import ResolvedConfig
from pipeline.training.losses import SegmentationLoss
from pipeline.training.optimization import average_of, build_optimizer, set_mode, set_rate
from pipeline.training.processes import gather, processes, share_batch_norm
from pipeline.training.state import TrainingState


class NotFiniteError(SlidemillError):
    """The loss of a step, or its gradient, is no finite number; the weights are those before the step."""


class Learner:
    """A network on its device with what moves its weights.

    Parameters
    ----------
    fabric : Fabric
        The device, the arithmetic, and the other processes, if there are any.
    network : SegmentationModel
        Changed in place.
    config : ResolvedConfig
        Loss, optimizer, and what of the network is frozen.

    Raises
    ------
    SlidemillError
        If the patches or the batch do not suit the network.
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
        self._model.mark_forward_method("logits_to_train")
        self._loss_of = SegmentationLoss(config.loss)
        self._average = average_of(network, config.optimizer.average)

    @property
    def judged(self) -> SegmentationModel:
        """The network that is validated and kept: the average of its weights, or itself."""
        network: SegmentationModel = self._average.module if self._average else self._network  # type: ignore[assignment]
        return network

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return a context in which networks compute in the precision of the training.

        Fabric enters it for ``forward`` alone: any other method of a network of one process it calls as it is.
        """
        return self._fabric.autocast()

    def step(self, batch: list[Tensor], *, rate: float, number: int) -> float:
        """Make step ``number`` (from 0) at a learning rate; return the loss of the whole batch.

        ``batch`` is image (N, channels, P, P), target (N, P, P) and weights (N, P, P) of this process.

        Raises
        ------
        NotFiniteError
            If the loss or its gradient is no finite number.
        """
        torch.manual_seed(_seed(self._config.seed, number, self._fabric.global_rank))  # of dropout
        set_mode(self._network, self._config, number)
        set_rate(self._optimizer, rate, number)
        image, *truth = batch
        loss = self._loss(image, truth)
        self._fabric.backward(loss)
        norm = self._fabric.clip_gradients(
            self._model,
            self._stepper,
            max_norm=self._config.optimizer.largest_gradient,
            error_if_nonfinite=False,
        )
        value, gradient = loss.item(), norm.item() if norm is not None else 0.0
        if self._config.precision == "float16":  # scaled too high now and then: such a step is left out
            gradient = 0.0
        if not math.isfinite(value + gradient):
            raise NotFiniteError(f"the loss is {value:g}, its gradient {gradient:g} at step {number + 1}")
        self._stepper.step()
        self._stepper.zero_grad()
        if self._average:
            self._average.update_parameters(self._network)
        return value

    def save(self, state: TrainingState) -> None:
        """Put all tensors of the training into a state."""
        state.take(self._network, self._optimizer, self._average, self._fabric.strategy.precision.state_dict())

    def load(self, state: TrainingState) -> None:
        """Go on from a state."""
        state.give(self._network, self._optimizer, self._average)
        self._fabric.strategy.precision.load_state_dict(state.scaler)

    def _loss(self, image: Tensor, truth: list[Tensor]) -> Tensor:
        """Return the weighted sum of the losses of all heads, over the batch of all processes."""
        geometry = self._network.geometry
        with self.arithmetic():
            heads = self._model.logits_to_train(_network_input(image, geometry))
        truth = [gather(part) for part in truth]
        losses = []
        for weight, part in heads:
            logits = gather(part)
            losses.append(weight * self._loss_of(logits, *(_beneath(logits, one, geometry) for one in truth)))
        return torch.stack(losses).sum()


def check_patch(geometry: Geometry, patch_px: int) -> None:
    """Raise :class:`SlidemillError` where a patch is not a multiple of the stride, or leaves no output."""
    stride, least = geometry.stride_px, 2 * geometry.margin_px + geometry.stride_px
    if patch_px % stride:
        raise SlidemillError(f"patch_px must be a multiple of the network's stride of {stride}, got {patch_px}")
    if patch_px < least:
        raise SlidemillError(f"patch_px must be at least {least} for this network, got {patch_px}")


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _network_input(image: Tensor, geometry: Geometry) -> Tensor:
    rows, columns = (geometry.input_px(length) for length in image.shape[-2:])
    return image[..., :rows, :columns].contiguous(memory_format=torch.channels_last)


def _beneath(logits: Tensor, part: Tensor, geometry: Geometry) -> Tensor:
    """Cut from a patch what the logits are of: all of it, or less the margin of valid convolutions."""
    rows, columns = (slice(geometry.margin_px, geometry.margin_px + length) for length in logits.shape[-2:])
    return part[..., rows, columns]
