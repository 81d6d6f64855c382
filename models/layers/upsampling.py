"""Up-sampling by two.

====================  ==================================================================================================
``nearest``           every value four times
``bilinear``          linear interpolation between pixel centres (corners not aligned)
``bed_of_nails``      the value in the first of four pixels, zeros in the others
``max_unpooling``     the value where the encoder's pooling found the largest of the four, zeros in the others; where
                      two of them are nearly equal, rounding decides: not continuous
``transposed``        a learned kernel (Long et al. 2015)
====================  ==================================================================================================
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.base.folding import noise_for
from models.base.interface import SegmentationModel

Upsampling = Literal["transposed", "nearest", "bilinear", "bed_of_nails", "max_unpooling"]


def upsample(image: Tensor, kind: Upsampling, indices: Tensor | None = None) -> Tensor:
    """Double rows and columns without learned weights.

    Parameters
    ----------
    image : (N, C, H, W) float tensor
    kind : str
        Any but ``transposed``.
    indices : (N, C, H, W) int64 tensor
        For ``max_unpooling``: what :func:`torch.nn.functional.max_pool2d` returned.

    Returns
    -------
    (N, C, 2 H, 2 W) float tensor
    """
    if kind == "nearest":
        return F.interpolate(image, scale_factor=2, mode="nearest")
    if kind == "bilinear":
        return F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    if kind == "bed_of_nails":
        nails = torch.zeros_like(image)
        return F.pixel_shuffle(torch.stack([image, nails, nails, nails], dim=2).flatten(1, 2), 2)
    if kind == "max_unpooling" and indices is not None:
        return F.max_unpool2d(image, indices, kernel_size=(2, 2))
    raise ValueError(f"unknown up-sampling {kind!r}, or indices are missing")


class Upsample(nn.Module):
    """From ``wide`` to ``narrow`` channels at twice the resolution.

    Kinds without weights follow a 1x1 convolution, so that their input has the channels of the level of the encoder, as
    the indices of its pooling require.
    """

    def __init__(self, wide: int, narrow: int, kind: Upsampling = "transposed") -> None:
        super().__init__()
        self.kind = kind
        self.convolve: nn.Module = (
            nn.ConvTranspose2d(wide, narrow, kernel_size=2, stride=2)
            if kind == "transposed"
            else nn.Conv2d(wide, narrow, kernel_size=1)
        )

    def forward(self, image: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return (N, narrow, 2 H, 2 W) of (N, wide, H, W)."""
        convolved: Tensor = self.convolve(image)
        return convolved if self.kind == "transposed" else upsample(convolved, self.kind, indices)


def bilinear_transposed(classes: int, factor: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution of ``classes`` channels that starts as bilinear interpolation by ``factor``.

    Full classes x classes kernels of 2 factor x 2 factor without bias, as in FCN (Long et al. 2015, section 3.3).
    """
    layer = nn.ConvTranspose2d(classes, classes, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    tent = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(torch.eye(classes)[:, :, None, None] * tent[:, None] * tent)
    return layer


@torch.no_grad()
def has_max_unpooling(network: SegmentationModel) -> bool:
    """Return whether a network moves values to where the largest of a window was found: then it is discontinuous."""
    with _Calls() as calls:
        network(noise_for(network))
    return F.max_unpool2d in calls.functions


class _Calls(TorchFunctionMode):
    """Remembers which functions of torch are called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: set[Any] = set()

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        self.functions.add(func)
        return func(*args, **dict(kwargs or {}))
