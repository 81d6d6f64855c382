"""U-Net: an encoder, a decoder, and a skip connection at every resolution.

Ronneberger, Fischer, Brox (2015), "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI,
doi:10.1007/978-3-319-24574-4_28. With ``padding="valid"`` it is the published network (572 -> 388 pixels, skips
cropped); with ``padding="same"`` every convolution is zero-padded and the logits have the size of the image.
The published network is ``width=64, normalization="none", padding="valid"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.blocks import Normalization, check_at_least_one, check_choice, double_convolution, initialize
from models.layers.deep_supervision import auxiliary_heads, by_level, weighted_logits
from models.layers.upsampling import Upsample, Upsampling

Padding = Literal["same", "valid"]


class UNet(SegmentationModel):
    """U-Net of any width and depth.

    Parameters
    ----------
    width : int
        Channels of the first level; each level below has twice as many. 64 as published.
    depth : int
        Number of 2x2 poolings. 4 as published.
    normalization : {"batch", "instance", "group", "none"}
        Normalization after each 3x3 convolution; none as published.
    padding : {"same", "valid"}
        Zero-padded convolutions, or unpadded ones, as published.
    upsampling : {"transposed", "nearest", "bilinear", "bed_of_nails", "max_unpooling"}
        How the decoder doubles the resolution; transposed (up-convolution) as published.
    deep_supervision : bool
        Additional heads on coarser levels, for training (:mod:`models.layers.deep_supervision`); not published.
    """

    paper = "Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28"

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        width: int = 32,
        depth: int = 4,
        normalization: Normalization = "batch",
        padding: Padding = "same",
        upsampling: Upsampling = "transposed",
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        check_choice("normalization", normalization, get_args(Normalization))
        check_choice("padding", padding, get_args(Padding))
        check_choice("upsampling", upsampling, get_args(Upsampling))
        check_choice("deep_supervision", deep_supervision, (True, False))
        if (padding, upsampling) == ("valid", "max_unpooling"):
            raise ValueError("upsampling max_unpooling needs padding same: the indices of cropped maps do not fit")
        widths = [width * 2**level for level in range(depth + 1)]
        self.stride_px = 2**depth
        if padding == "valid":
            # Two 3x3 convolutions on each level: 2 (2^d - 1) + 2 2^d + 2 (2^d - 1); each level must halve evenly.
            self.margin_px, self.remainder_px = 6 * self.stride_px - 4, -4 % self.stride_px
        around = 1 if padding == "same" else 0
        self.encoder = nn.ModuleList(
            double_convolution(*channels, padding=around, normalization=normalization)
            for channels in pairwise([in_channels, *widths])
        )
        self.up = nn.ModuleList(Upsample(wide, narrow, upsampling) for narrow, wide in reversed(list(pairwise(widths))))
        self.decoder = nn.ModuleList(
            double_convolution(2 * narrow, narrow, padding=around, normalization=normalization)
            for narrow in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        self.auxiliary = auxiliary_heads(widths, num_classes) if deep_supervision else nn.ModuleList()
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits, less the margin of valid convolutions."""
        (logits,) = self._scores(image, [self.head])
        return logits

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return the logits, and those of deep supervision."""
        return weighted_logits(self._scores(image, [*self.auxiliary, self.head])[::-1])

    def _scores(self, image: Tensor, heads: Sequence[nn.Module]) -> list[Tensor]:
        """Return the outputs of the heads of the last levels of the decoder, coarsest first."""
        skips, indices = [], []
        for encode in self.encoder[:-1]:
            image = encode(image)
            skips.append(image)  # (N, width * 2**level, H / 2**level, W / 2**level)
            image, where = F.max_pool2d(image, kernel_size=2, return_indices=True)
            indices.append(where)
        image = self.encoder[-1](image)
        scores = []
        for up, decode, head in zip(self.up, self.decoder, by_level(heads, len(self.decoder)), strict=True):
            image = up(image, indices.pop())
            image = torch.cat([_crop_like(skips.pop(), image), image], dim=1)
            for layer in decode.children():  # one by one, to free the largest map early
                image = layer(image)
            if head is not None:
                scores.append(head(image))
        return scores


def _crop_like(skip: Tensor, image: Tensor) -> Tensor:
    """Return the centre of ``skip`` in the size of ``image``; all of it if convolutions are padded."""
    height, width = image.shape[-2:]
    top, left = (skip.shape[-2] - height) // 2, (skip.shape[-1] - width) // 2
    return skip[..., top : top + height, left : left + width]
