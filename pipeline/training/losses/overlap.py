"""Losses that compare areas: soft overlap of softmax and truth over all pixels of a batch, per class, by MONAI.

Arguments are those of every loss, see :mod:`pipeline.training.losses`; ``weights`` are ignored. Below, p is the
probability of a class, t is 1 for the true class and else 0, and sums are over the batch.
"""

from __future__ import annotations

from monai.losses import DiceLoss, GeneralizedDiceLoss, TverskyLoss
from torch import Tensor

from pipeline.slides.labels import IGNORED
from pipeline.training.losses.unknown_pixels import memberships

_SMOOTH = 1e-12


def dice(logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED) -> Tensor:
    """Return the mean over classes of 1 - 2 sum(p t) / (sum(p) + sum(t)).

    References
    ----------
    Milletari (2016), doi:10.1109/3DV.2016.79, without squares.
    """
    loss: Tensor = DiceLoss(batch=True)(*memberships(logits, target, ignore_index))
    return loss


def jaccard(logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED) -> Tensor:
    """Return the mean over classes of 1 - sum(p t) / (sum(p) + sum(t) - sum(p t)).

    References
    ----------
    Rahman, Wang (2016), doi:10.1007/978-3-319-50835-1_22
    """
    loss: Tensor = DiceLoss(batch=True, jaccard=True)(*memberships(logits, target, ignore_index))
    return loss


def tversky(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    ignore_index: int = IGNORED,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
) -> Tensor:
    """Return the mean over classes of 1 - sum(p t) / (sum(p t) + alpha sum(p (1 - t)) + beta sum((1 - p) t)).

    ``alpha`` is the weight of false positives, ``beta`` that of false negatives; 0.5 and 0.5 give Dice.

    References
    ----------
    Salehi (2017), doi:10.1007/978-3-319-67389-9_44
    """
    loss: Tensor = TverskyLoss(batch=True, alpha=alpha, beta=beta)(*memberships(logits, target, ignore_index))
    return loss


def generalized_dice(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED
) -> Tensor:
    """Return 1 - 2 sum_c(v_c sum(p t)) / sum_c(v_c (sum(p) + sum(t))) with v_c = 1 / sum(t)^2 over the classes c.

    A class that is absent from the truth gets the largest v_c of the others.

    References
    ----------
    Sudre (2017), doi:10.1007/978-3-319-67558-9_28
    """
    # Numerator and denominator are about 1 / pixels of the batch, as large as the default constant of MONAI, 1e-5.
    loss_of = GeneralizedDiceLoss(batch=True, smooth_nr=_SMOOTH, smooth_dr=_SMOOTH)
    loss: Tensor = loss_of(*memberships(logits, target, ignore_index))
    return loss
