"""The optimizer, the learning rate schedule, frozen layers, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.base.interface import SegmentationModel
from pipeline.settings.networks import ModelConfig, OptimizerConfig

_POWER = 0.9  # of the schedule `poly`: Chen et al. 2018, doi:10.1109/TPAMI.2017.2699184


def parameter_groups(network: SegmentationModel, config: ModelConfig) -> list[dict[str, Any]]:
    """Return the parameters to train as groups of an optimizer, without those that are always frozen.

    The encoder is a group of its own if it learns more slowly or later than the rest. Each group has a
    ``relative_rate`` and a ``first_step``.
    """
    apart = config.encoder_rate < 1 or config.frozen_steps > 0
    encoder = {id(parameter) for parameter in network.encoder.parameters()} if apart else set[int]()
    rest = [parameter for parameter in network.parameters() if id(parameter) not in encoder]
    slow = [parameter for parameter in network.parameters() if id(parameter) in encoder]
    groups: list[dict[str, Any]] = [
        {"params": rest, "relative_rate": 1.0, "first_step": 0},
        {"params": slow, "relative_rate": config.encoder_rate, "first_step": config.frozen_steps},
    ]
    return [group for group in groups if group["params"] and group["relative_rate"]]


def build_optimizer(network: SegmentationModel, config: ModelConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a network; its learning rates are set before each step."""
    groups, settings = parameter_groups(network, config), config.optimizer
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, weight_decay=settings.weight_decay)
    fused = config.precision != "float16"  # Fabric cannot clip scaled gradients of a fused optimizer
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=settings.weight_decay, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int) -> None:
    """Set the learning rate of every group for a step (from 0): 0 while the group is frozen."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["relative_rate"] if step >= group["first_step"] else 0.0


def drop_frozen_gradients(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Remove the gradients of groups that are frozen at a step: what is not applied must not count when clipping."""
    for group in optimizer.param_groups:
        if step < group["first_step"]:
            for parameter in group["params"]:
                parameter.grad = None


def set_mode(network: SegmentationModel, config: ModelConfig, step: int) -> None:
    """Switch to training mode; a frozen encoder keeps its statistics, and needs no gradients if it is always frozen."""
    network.train()
    if config.encoder_rate == 0 or step < config.frozen_steps:
        network.encoder.eval()
    if config.encoder_rate == 0:
        network.encoder.requires_grad_(requires_grad=False)


def schedule(fraction: float, config: OptimizerConfig) -> float:
    """Return the learning rate relative to its peak, at a ``fraction`` in [0, 1] of the training.

    It may be 0 at both ends; the rate of a step is that in its middle, so every step learns.
    """
    rise = min(1.0, fraction / config.warm_up) if config.warm_up else 1.0
    fall: dict[str, float] = {
        "cosine": 0.5 * (1 + math.cos(math.pi * fraction)),
        "poly": (1 - fraction) ** _POWER,
        "constant": 1.0,
    }
    return rise * fall[config.schedule]


def average_of(network: SegmentationModel, decay: float) -> AveragedModel | None:
    """Return the moving average of a network's weights and statistics, to be updated after every step.

    Its ``module`` is a network of its own. None if ``decay`` is 0.

    References
    ----------
    Polyak and Juditsky (1992), doi:10.1137/0330046; the decay that grows with the steps is TensorFlow's.
    """
    if decay == 0:
        return None

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(current), share)
        else:  # counters
            torch._foreach_copy_(list(averages), list(current))

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.module.eval().requires_grad_(requires_grad=False)
    return average
