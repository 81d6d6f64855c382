"""Attention U-Net: a U-Net whose skips are weighted, pixel by pixel, by features of the decoder.

Oktay et al. (2018), "Attention U-Net: Learning Where to Look for the Pancreas", arXiv:1804.03999. The decoder is
up-sampled before the gate, so that gate and skip have one resolution: the additive gate consists of 1x1 convolutions
and needs no interpolation of its coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.blocks import check_at_least_one, check_choice, convolution, double_convolution, initialize
from models.layers.deep_supervision import auxiliary_heads, by_level, weighted_logits


class AttentionUNet(SegmentationModel):
    """U-Net with additive attention gates, zero-padded, batch-normalized; up-sampling is nearest neighbour and 3x3.

    Parameters
    ----------
    width : int
        Channels of the first level; each level below has twice as many. 64 as published.
    depth : int
        Number of 2x2 poolings. 4 as published.
    deep_supervision : bool
        Additional heads on coarser levels, for training (:mod:`models.layers.deep_supervision`).
    """

    paper = "Oktay et al. 2018, arXiv:1804.03999"

    def __init__(
        self, *, in_channels: int, num_classes: int, width: int = 64, depth: int = 4, deep_supervision: bool = False
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        check_choice("deep_supervision", deep_supervision, (True, False))
        widths = [width * 2**level for level in range(depth + 1)]
        levels = list(reversed(widths[:-1]))
        self.stride_px = 2**depth
        self.encoder = nn.ModuleList(double_convolution(*channels) for channels in pairwise([in_channels, *widths]))
        self.up = nn.ModuleList(nn.Sequential(*convolution(2 * channels, channels)) for channels in levels)
        self.gate = nn.ModuleList(AttentionGate(channels) for channels in levels)
        self.decoder = nn.ModuleList(double_convolution(2 * channels, channels) for channels in levels)
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        self.auxiliary = auxiliary_heads(widths, num_classes) if deep_supervision else nn.ModuleList()
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        (logits,) = self._scores(image, [self.head])
        return logits

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return the logits, and those of deep supervision."""
        return weighted_logits(self._scores(image, [*self.auxiliary, self.head])[::-1])

    def _scores(self, image: Tensor, heads: Sequence[nn.Module]) -> list[Tensor]:
        """Return the outputs of the heads of the last levels of the decoder, coarsest first."""
        skips = []
        for encode in self.encoder[:-1]:
            image = encode(image)
            skips.append(image)  # (N, width * 2**level, H / 2**level, W / 2**level)
            image = F.max_pool2d(image, kernel_size=2)
        image = self.encoder[-1](image)
        scores = []
        levels = zip(self.up, self.gate, self.decoder, by_level(heads, len(self.decoder)), strict=True)
        for up, gate, decode, head in levels:
            image = up(F.interpolate(image, scale_factor=2, mode="nearest"))
            image = decode(torch.cat([gate(skips.pop(), image), image], dim=1))
            if head is not None:
                scores.append(head(image))
        return scores


class AttentionGate(nn.Module):
    """Additive attention: sigmoid(psi(relu(W_x skip + W_g gate))) times the skip (figure 2 of the paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.of_gate = nn.Sequential(nn.Conv2d(channels, hidden, kernel_size=1), nn.BatchNorm2d(hidden))
        self.of_skip = nn.Sequential(nn.Conv2d(channels, hidden, kernel_size=1), nn.BatchNorm2d(hidden))
        self.psi = nn.Sequential(nn.Conv2d(hidden, 1, kernel_size=1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Return the weighted skip; both are (N, C, H, W)."""
        coefficients: Tensor = self.psi(F.relu(self.of_gate(gate) + self.of_skip(skip)))  # (N, 1, H, W) in (0, 1)
        return skip * coefficients
