"""The Lovász-softmax loss: a convex extension of the Jaccard index."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.slides.labels import IGNORED
from pipeline.training.losses.unknown_pixels import only_known


def lovasz_softmax(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED
) -> Tensor:
    """Return the Lovász extension of the Jaccard loss over all pixels of the batch, averaged over its classes.

    Arguments are those of every loss, see :mod:`pipeline.training.losses`; ``weights`` are ignored.

    References
    ----------
    Berman, Triki, Blaschko (2018), doi:10.1109/CVPR.2018.00464, algorithm 1 and equation 11.
    """
    logits, target, known = only_known(logits, target, ignore_index)
    probabilities = logits.softmax(dim=1).movedim(1, -1)[known]  # (pixels, C)
    truth = F.one_hot(target[known], logits.shape[1])
    errors, order = (truth - probabilities).abs().sort(dim=0, descending=True, stable=True)
    per_class = (errors * _jaccard_steps(truth.gather(0, order), errors.dtype)).sum(dim=0)
    present = truth.any(dim=0)
    return (per_class * present).sum() / present.sum().clamp(min=1)


def _jaccard_steps(truth: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the increase of the Jaccard loss of each class with each further wrong pixel, in the order of the rows.

    A missed pixel reduces the intersection by one, a false one increases the union; written without a difference of
    nearly equal losses. ``truth`` is (pixels, C) int64 of 0 and 1; the result has its shape.
    """
    intersection = (truth.sum(dim=0) - truth.cumsum(dim=0)).to(dtype)
    union = (truth.sum(dim=0) + (1 - truth).cumsum(dim=0)).to(dtype)
    before = (union - 1).clamp(min=1)  # of a false pixel; 0 only for an absent class
    return torch.where(truth == 1, 1 / union, intersection / (union * before))
