"""Deep supervision: additional heads at the coarser levels of a decoder, used in training only.

Isensee et al. (2021), "nnU-Net", doi:10.1038/s41592-020-01008-z: at every level but the two of lowest resolution, with
half the weight at each level down. nnU-Net shrinks the target to each head. Here the logits are enlarged to the size of
the image, as for the auxiliary head of PSPNet: a shrunken target would lose thin structures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

_NOT_SUPERVISED = 2  # levels of lowest resolution


def auxiliary_heads(widths: Sequence[int], num_classes: int) -> nn.ModuleList:
    """Return a 1x1 convolution for each supervised level of a decoder but the last, coarsest first.

    ``widths`` are the channels of the levels of a U-Net, finest first, that of the lowest resolution included.

    Raises
    ------
    ValueError
        If there is no level to supervise.
    """
    supervised = widths[1:-_NOT_SUPERVISED]
    if not supervised:
        raise ValueError(f"deep_supervision needs a depth of at least 3, got {len(widths) - 1}")
    return nn.ModuleList(nn.Conv2d(width, num_classes, kernel_size=1) for width in reversed(supervised))


def by_level(heads: Sequence[nn.Module], levels: int) -> list[nn.Module | None]:
    """Return the head of each level of a decoder (None: no head), coarsest first; ``heads`` are the last ones."""
    return [*[None] * (levels - len(heads)), *heads]


def weighted_logits(scores: Sequence[Tensor]) -> list[tuple[float, Tensor]]:
    """Return the weight of the loss (1, 1/2, 1/4, ...) and the logits of every head, in the size of the finest.

    Parameters
    ----------
    scores : sequence of (N, C, H, W) tensors
        Finest first, each with half the resolution of the one before. With unpadded convolutions the coarser ones
        cover more of the image, equally on each side; that is cut off.
    """
    height, width = scores[0].shape[-2:]
    logits = []
    for level, score in enumerate(scores):
        large = F.interpolate(score, scale_factor=2**level, mode="bilinear", align_corners=False) if level else score
        top, left = (large.shape[-2] - height) // 2, (large.shape[-1] - width) // 2
        logits.append((0.5**level, large[..., top : top + height, left : left + width]))
    return logits
