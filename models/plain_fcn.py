"""A plain fully convolutional network: all layers at full resolution, with growing dilation.

Yu, Koltun (2016), "Multi-Scale Context Aggregation by Dilated Convolutions", arXiv:1511.07122: the context module
(table 1) on the image itself. Nothing is down-sampled, which takes more memory.
"""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.blocks import Normalization, check_at_least_one, check_choice, convolution, initialize


class PlainFCN(SegmentationModel):
    """3x3 convolutions with dilation 1, 1, 2, 4, ..., 1, and a 1x1 convolution to the classes.

    Parameters
    ----------
    width : int
        Channels of every layer.
    depth : int
        Number of doublings of the dilation; 4 as published (1, 1, 2, 4, 8, 16, 1).
    normalization : {"batch", "instance", "group", "none"}
        Normalization after each 3x3 convolution; none as published.
    """

    paper = "Yu & Koltun 2016, arXiv:1511.07122"

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        width: int = 32,
        depth: int = 4,
        normalization: Normalization = "batch",
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        check_choice("normalization", normalization, get_args(Normalization))
        layers, channels = list[nn.Module](), in_channels
        for dilation in (1, *(2**doubling for doubling in range(depth + 1)), 1):
            layers += convolution(channels, width, dilation=dilation, normalization=normalization)
            channels = width
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        logits: Tensor = self.head(self.encoder(image))
        return logits
