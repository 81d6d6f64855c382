"""The training loss: pixel-weighted cross-entropy plus Dice, each with a weight of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from pipeline.model_config import LossConfig


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the cross-entropy over pixels, weighted: sum(w * ce) / sum(w).

    Parameters
    ----------
    logits : (N, C, H, W) float tensor
    target : (N, H, W) int64 tensor
        Values in [0, C).
    weights : (N, H, W) float tensor
        At least 0, not all 0.

    References
    ----------
    Ronneberger (2015), doi:10.1007/978-3-319-24574-4_28, equation 1, divided by the sum of the weights so that its
    size does not depend on them.
    """
    return (F.cross_entropy(logits, target, reduction="none") * weights).sum() / weights.sum()


class SegmentationLoss(nn.Module):
    """The weighted sum of :func:`weighted_cross_entropy` and the soft Dice loss of MONAI.

    Dice is taken over the softmax of all classes and all pixels of a batch (Milletari 2016, doi:10.1109/3DV.2016.79,
    without squares).
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.cross_entropy = config.cross_entropy
        self.dice = config.dice
        self._dice_loss = DiceLoss(softmax=True, to_onehot_y=True, batch=True)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of (N, C, H, W) logits, (N, H, W) int64 targets and (N, H, W) weights, in float32."""
        logits = logits.float()  # sums over many pixels lose too much in bfloat16
        loss = torch.zeros((), device=logits.device)
        if self.cross_entropy:
            loss = loss + self.cross_entropy * weighted_cross_entropy(logits, target, weights)
        if self.dice:
            loss = loss + self.dice * self._dice_loss(logits, target[:, None])
        return loss
