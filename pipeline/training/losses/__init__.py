"""The losses, by name, and their weighted sum.

A loss measures how far the logits of a batch are from the true classes: a scalar in float32 (float64 for float64
logits), since bfloat16 is too coarse for sums over many pixels. A new loss is a function, a line in the table below,
and its weight in ``LossWeights`` of ``pipeline/settings/networks.py``. The arguments are
``(logits, target, weights, ignore_index)``:

logits : (N, C, H, W) float tensor
target : (N, H, W) int64 tensor
    Values in [0, C), or ``ignore_index`` for unknown pixels, which change neither value nor gradient, even if their
    logits are NaN. The loss and the gradient of a batch of unknown pixels are 0.
weights : (N, H, W) float tensor or None
    Weight map, at least 0, for the losses that are means over pixels (:mod:`pipeline.training.losses.pixels`). The
    others compare areas of the whole batch and ignore it.
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
    """The weighted sum of all losses with a weight in the configuration."""

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
