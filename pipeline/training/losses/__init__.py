"""The losses, by name, and the weighted sum of them that a network learns from.

The table below is the only place that knows them: a new loss is a function, a line here, and its weight in
``LossWeights`` of ``pipeline/settings/networks.py``. Every one is called as
``loss(logits, target, weights, ignore_index)``:

logits : (N, C, H, W) float tensor
target : (N, H, W) int64 tensor
    Values in [0, C), or ``ignore_index`` where nothing is known: such a pixel changes neither value nor gradient,
    whatever its logits are. A batch without any other pixel costs 0, with gradients of 0.
weights : (N, H, W) float tensor or None
    What a pixel counts, at least 0, for the losses that are means over pixels
    (:mod:`pipeline.training.losses.pixels`). The others compare areas of the whole batch and ignore it.

and returns a scalar in float32 (float64 for float64 logits): sums over many pixels lose too much in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn

from pipeline.settings.networks import LossConfig
from pipeline.slides.labels import IGNORED

__all__ = ["SegmentationLoss", "available", "find"]

_LOSSES = {
    "cl_dice": "pipeline.training.losses.centrelines:cl_dice",
    "cross_entropy": "pipeline.training.losses.pixels:cross_entropy",
    "dice": "pipeline.training.losses.overlap:dice",
    "focal": "pipeline.training.losses.pixels:focal",
    "generalized_dice": "pipeline.training.losses.overlap:generalized_dice",
    "jaccard": "pipeline.training.losses.overlap:jaccard",
    "lovasz": "pipeline.training.losses.lovasz:lovasz_softmax",
    "tversky": "pipeline.training.losses.overlap:tversky",
}


Loss = Callable[..., Tensor]


def available() -> list[str]:
    """Return the names of all losses, sorted."""
    return sorted(_LOSSES)


def find(name: str) -> Loss:
    """Return a loss; raise ValueError for an unknown name."""
    if name not in _LOSSES:
        raise ValueError(f"unknown loss {name!r}; available: {', '.join(available())}")
    module, _, function = _LOSSES[name].partition(":")
    loss: Loss = getattr(import_module(module), function)
    return loss


class SegmentationLoss(nn.Module):
    """The sum of all losses that have a weight in the configuration, times these weights."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.parts = [
            (weight, partial(find(name), **config.parameters_of(name)))
            for name in available()
            if (weight := getattr(config, name))
        ]

    def forward(
        self, logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED
    ) -> Tensor:
        """Return the loss; shapes and types are those of every loss above."""
        return torch.stack([weight * loss(logits, target, weights, ignore_index) for weight, loss in self.parts]).sum()
