"""Masking of the pixels of a batch whose class is unknown."""

from __future__ import annotations

import torch
from torch import Tensor


def only_known(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits and target with zeros where the target is ``ignore_index``, and a mask of the other pixels.

    Logits are overwritten, not multiplied by 0: the result is 0 even for NaN, and so is their gradient.

    Returns
    -------
    logits : (N, C, H, W) float32 tensor, or float64 as given
    target : (N, H, W) int64 tensor
    known : (N, H, W) bool tensor
    """
    known = target != ignore_index
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return precise.masked_fill(~known[:, None], 0), target.masked_fill(~known, 0), known


def memberships(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the softmax of the logits and the one-hot target, (N, C, H, W); 0 for unknown pixels."""
    logits, target, known = only_known(logits, target, ignore_index)
    belongs = known[:, None].to(logits.dtype)
    truth = torch.zeros_like(logits).scatter(1, target[:, None], belongs)
    return logits.softmax(dim=1) * belongs, truth
