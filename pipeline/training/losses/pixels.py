"""Losses that are weighted means over pixels, sum(w loss) / sum(w), independent of the scale of the weights.

Arguments are those of every loss, see :mod:`pipeline.training.losses`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses.focal_loss import softmax_focal_loss
from torch import Tensor

from pipeline.slides.labels import IGNORED
from pipeline.training.losses.unknown_pixels import memberships, only_known


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED) -> Tensor:
    """Return the mean of -log p of the true class, weighted by ``weights``.

    References
    ----------
    Ronneberger (2015), doi:10.1007/978-3-319-24574-4_28, equation 1, divided by the sum of the weights.
    """
    logits, target, known = only_known(logits, target, ignore_index)
    return _mean(F.cross_entropy(logits, target, reduction="none"), weights, known)


def focal(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED, *, gamma: float = 2.0
) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p of the true class, weighted by ``weights`` (instead of alpha).

    References
    ----------
    Lin (2017), "Focal Loss for Dense Object Detection", doi:10.1109/ICCV.2017.324, equation 5; over the softmax.
    """
    _, truth = memberships(logits, target, ignore_index)
    logits, _, known = only_known(logits, target, ignore_index)
    return _mean(softmax_focal_loss(logits, truth, gamma).sum(dim=1), weights, known)


def _mean(losses: Tensor, weights: Tensor | None, known: Tensor) -> Tensor:
    """Return the weighted mean of (N, H, W) losses over the known pixels; 0 if all weights are 0."""
    counted = known.to(losses.dtype) if weights is None else weights.to(losses.dtype) * known
    return (losses * counted).sum() / counted.sum().clamp(min=torch.finfo(losses.dtype).tiny)
