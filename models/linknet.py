"""LinkNet: ResNet-18, and a decoder that adds each level of the encoder instead of concatenating it.

Chaurasia, Culurciello (2017), "LinkNet: Exploiting Encoder Representations for Efficient Semantic Segmentation",
doi:10.1109/VCIP.2017.8305148, figures 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.backbones import ResNet, load_resnet
from models.layers.blocks import check_at_least_one, convolution, initialize, transposed_convolution


class LinkNet(SegmentationModel):
    """LinkNet on ResNet-18.

    Parameters
    ----------
    width : int
        Channels of the first stage, 64 in ResNet-18.
    """

    paper = "Chaurasia & Culurciello 2017, doi:10.1109/VCIP.2017.8305148"
    narrow_options: ClassVar[Mapping[str, Any]] = {"width": 4}
    backbone = "resnet18"

    def __init__(self, *, in_channels: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        self.stride_px = 32
        self.encoder = ResNet(18, in_channels=in_channels, width=width)
        first, second, third, fourth = self.encoder.channels
        self.decoder = nn.ModuleList(
            [_Decode(fourth, third), _Decode(third, second), _Decode(second, first), _Decode(first, first, stride=1)]
        )
        half = max(width // 2, 1)
        self.head = nn.Sequential(
            *transposed_convolution(first, half, stride=2, bias=False),
            *convolution(half, half, bias=False),
            nn.ConvTranspose2d(half, num_classes, kernel_size=2, stride=2),
        )
        self.decoder.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        _, *links, image = self.encoder(image)
        for decode in self.decoder:
            image = decode(image)
            if links:
                image = image + links.pop()
        logits: Tensor = self.head(image)
        return logits

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load ResNet-18 without its classifier."""
        load_resnet(self.encoder, state)


class _Decode(nn.Sequential):
    """1x1 convolution to a quarter of the channels, up-sampling by ``stride``, 1x1 convolution to ``narrow``."""

    def __init__(self, wide: int, narrow: int, *, stride: int = 2) -> None:
        quarter = max(wide // 4, 1)
        super().__init__(
            *convolution(wide, quarter, kernel=1, bias=False),
            *transposed_convolution(quarter, quarter, stride=stride, bias=False),
            *convolution(quarter, narrow, kernel=1, bias=False),
        )
