"""The losses of heads: how far their channels are from their targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base.heads import Head
from pipeline.settings.networks import LossConfig
from pipeline.slides.labels import IGNORED
from pipeline.training.losses.unknown_pixels import only_known


class HeadLosses(nn.Module):
    """The loss of each head, with its weight in the configuration."""

    weights: Tensor

    def __init__(self, config: LossConfig, heads: Sequence[Head]) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("weights", torch.tensor([float(getattr(config, head)) for head in heads]))

    def forward(
        self, channels: Tensor, values: Tensor, target: Tensor, ignore_index: int = IGNORED
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of :func:`smooth_l1`, and what it is the sum of, before the weights."""
        losses = smooth_l1(channels, values, target, ignore_index)
        return (losses * self.weights.to(losses)).sum(), losses


def smooth_l1(channels: Tensor, values: Tensor, target: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Return the mean of 0.5 d² over the annotated pixels of the batch, |d| - 0.5 where |d| > 1, for each head.

    Parameters
    ----------
    channels : (N, heads, H, W) float tensor
        Of the network, not limited to 0 to 1.
    values : (N, heads, H, W) float tensor
        In 0 to 1.
    target : (N, H, W) int64 tensor
        Classes; pixels of ``ignore_index`` change neither value nor gradient.

    Returns
    -------
    (heads,) float tensor
        0 without annotated pixels.

    References
    ----------
    Girshick (2015), "Fast R-CNN", doi:10.1109/ICCV.2015.169, equation 3
    """
    channels, _, known = only_known(channels, target, ignore_index)
    differences = F.smooth_l1_loss(channels, values.to(channels.dtype), reduction="none") * known[:, None]
    return differences.sum(dim=(0, 2, 3)) / known.sum().clamp(min=1)
