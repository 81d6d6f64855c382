"""U-Net: an encoder, a decoder, and a skip at every resolution between them.

Ronneberger, Fischer, Brox (2015), "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI,
doi:10.1007/978-3-319-24574-4_28. With ``padding="valid"`` it is the published network (572 -> 388 pixels, skips
cropped); with ``padding="same"`` every convolution is zero-padded and the logits have the size of the image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.geometry import Geometry
from models.interface import SegmentationModel

Padding = Literal["same", "valid"]
Normalization = Literal["none", "batch"]


class UNet(SegmentationModel):
    """U-Net of any width and depth.

    Parameters
    ----------
    in_channels, num_classes : int
        Channels of the image and classes of the logits.
    width : int
        Channels of the first level; each level below has twice as many. 64 as published.
    depth : int
        Number of 2x2 poolings. 4 as published.
    normalization : {"batch", "none"}
        Batch normalization after each 3x3 convolution, or none, as published.
    padding : {"same", "valid"}
        Zero-padded convolutions, or unpadded ones, as published.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        width: int = 32,
        depth: int = 4,
        normalization: Normalization = "batch",
        padding: Padding = "same",
    ) -> None:
        super().__init__()
        _check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        _check_choice("normalization", normalization, get_args(Normalization))
        _check_choice("padding", padding, get_args(Padding))
        self.depth = depth
        self.padding = padding
        widths = [width * 2**level for level in range(depth + 1)]

        self.encoder = nn.ModuleList(
            _double_convolution(narrow, wide, normalization, padding)
            for narrow, wide in pairwise([in_channels, *widths])
        )
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.decoder = nn.ModuleList(
            _Decode(wide, narrow, normalization, padding) for narrow, wide in reversed(list(pairwise(widths)))
        )
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        self.apply(_initialize)

    @property
    def geometry(self) -> Geometry:
        """Stride 2^depth, and the context that the chain of 3x3 convolutions and 2x2 samplings adds up to."""
        stride_px = 2**self.depth
        if self.padding == "same":
            return Geometry(stride_px=stride_px, context_px=_context_px(self.depth))
        return Geometry(
            stride_px=stride_px,
            context_px=_context_px(self.depth),
            margin_px=6 * stride_px - 4,  # two 3x3 convolutions on each level: 2 (2^d - 1) + 2 2^d + 2 (2^d - 1)
            remainder_px=-4 % stride_px,  # every level of the encoder must halve without a remainder
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits, less the margin of valid convolutions."""
        skips = []
        for level, encode in enumerate(self.encoder):
            image = encode(image if level == 0 else self.pool(image))
            skips.append(image)  # (N, width * 2**level, H / 2**level, W / 2**level)
        for decode, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            image = decode(image, skip)
        logits: Tensor = self.head(image)
        return logits


class _Decode(nn.Module):
    """Double the resolution, put the skip beside it, convolve twice."""

    def __init__(self, wide: int, narrow: int, normalization: Normalization, padding: Padding) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(wide, narrow, kernel_size=2, stride=2)
        self.convolve = _double_convolution(wide, narrow, normalization, padding)

    def forward(self, image: Tensor, skip: Tensor) -> Tensor:
        image = self.up(image)
        convolved: Tensor = self.convolve(torch.cat([_crop_like(skip, image), image], dim=1))
        return convolved


def _crop_like(skip: Tensor, image: Tensor) -> Tensor:
    """Return the centre of ``skip`` in the size of ``image``; all of it where convolutions are padded."""
    height, width = image.shape[-2:]
    top, left = (skip.shape[-2] - height) // 2, (skip.shape[-1] - width) // 2
    return skip[..., top : top + height, left : left + width]


def _double_convolution(narrow: int, wide: int, normalization: Normalization, padding: Padding) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (narrow, wide):
        layers.append(nn.Conv2d(channels, wide, kernel_size=3, padding=1 if padding == "same" else 0))
        if normalization == "batch":
            layers.append(nn.BatchNorm2d(wide))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _initialize(module: nn.Module) -> None:
    """Draw weights of standard deviation sqrt(2 / fan-in), section 3 of the paper (He et al. 2015)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _context_px(depth: int) -> int:
    """Follow the edge of an aligned region back to the image; the result is measured again in the tests."""
    reach = 0
    for _ in range(depth):  # decoder, from the finest level: two 3x3 convolutions, then to the coarser grid
        reach = -(-(reach + 2) // 2)
    reach += 2  # the bottom
    for _ in range(depth):  # encoder, from the coarsest level
        reach = 2 * reach + 2
    return reach


def _check_at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
