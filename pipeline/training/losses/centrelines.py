"""clDice: a loss for the connectedness of thin structures, by the overlap of centrelines and areas."""

from __future__ import annotations

from monai.losses.cldice import soft_skel
from torch import Tensor

from pipeline.slides.labels import IGNORED
from pipeline.training.losses.unknown_pixels import memberships

_SMOOTH = 1.0  # as in the code of the authors


def cl_dice(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, ignore_index: int = IGNORED, *, iterations: int = 3
) -> Tensor:
    """Return the mean over classes of 1 - 2 P S / (P + S), over all pixels of the batch.

    P is the part of the predicted centreline that lies in the true class, S the part of the true centreline that lies
    in the predicted one. Centrelines are soft, made by ``iterations`` erosions: at least half the width of the
    structures in px. Unknown pixels belong to no structure. Widths are not compared: combine it with another loss.
    Arguments are those of every loss, see :mod:`pipeline.training.losses`; ``weights`` are ignored.

    References
    ----------
    Shit et al. (2021), doi:10.1109/CVPR46437.2021.01629, equations 1 to 3 and algorithm 1.
    """
    predicted, truth = memberships(logits, target, ignore_index)
    precision = _share(soft_skel(predicted, iterations), truth)
    sensitivity = _share(soft_skel(truth, iterations), predicted)
    return (1 - 2 * precision * sensitivity / (precision + sensitivity)).mean()


def _share(centreline: Tensor, area: Tensor) -> Tensor:
    """Return the part of each centreline that lies in the area, (C,) from (N, C, H, W)."""
    inside, whole = ((centreline * part).sum(dim=(0, 2, 3)) for part in (area, 1))
    return (inside + _SMOOTH) / (whole + _SMOOTH)
