"""The common part of PSPNet and DeepLabv3: a ResNet dilated to output stride 8, and its heads.

Yu, Koltun, Funkhouser (2017), "Dilated Residual Networks", doi:10.1109/CVPR.2017.75.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.backbones import RESNETS, ResNet, load_resnet
from models.layers.blocks import check_at_least_one, check_choice, convolution, initialize

_STRIDE_PX = 8


class DilatedResNet(SegmentationModel):
    """A ResNet of output stride 8 and the heads that score its features.

    Parameters
    ----------
    width : int
        Channels of the first stage of the ResNet, 64 as published.
    depth : {50, 101, 152}
        Layers of the ResNet.
    auxiliary : bool
        Add a head on the third stage, used in training with weight ``auxiliary_weight``.
    """

    auxiliary_weight: ClassVar[float]
    least_batch = 2

    def __init__(
        self, *, in_channels: int, num_classes: int, width: int = 64, depth: int = 50, auxiliary: bool = True
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        check_choice("depth", depth, RESNETS[2:])
        check_choice("auxiliary", auxiliary, (True, False))
        self.stride_px, self.backbone = _STRIDE_PX, f"resnet{depth}"
        self.encoder = ResNet(depth, in_channels=in_channels, width=width, output_stride=_STRIDE_PX)
        *_, third, _ = self.encoder.channels
        self.auxiliary = head(third, third // 4, num_classes, dropout=nn.Dropout(0.1)) if auxiliary else None
        self.add_head(num_classes)

    @abstractmethod
    def add_head(self, num_classes: int) -> None:
        """Add the layers of :meth:`score`."""

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Return (N, num_classes, H / 8, W / 8) scores of the (N, C, H / 8, W / 8) features of the last stage."""

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        return _enlarge(self.score(self.encoder(image)[-1]))

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return the logits, and those of the auxiliary head."""
        *_, third, fourth = self.encoder(image)
        logits = [(1.0, _enlarge(self.score(fourth)))]
        if self.auxiliary is not None:
            logits.append((self.auxiliary_weight, _enlarge(self.auxiliary(third))))
        return logits

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the ResNet without its classifier."""
        load_resnet(self.encoder, state)


def head(wide: int, hidden: int, num_classes: int, *, dropout: nn.Module) -> nn.Sequential:
    """Return 3x3 convolution, dropout, 1x1 convolution to the classes."""
    layers = [*convolution(wide, hidden, bias=False), dropout, nn.Conv2d(hidden, num_classes, kernel_size=1)]
    return nn.Sequential(*layers).apply(initialize)


def _enlarge(scores: Tensor) -> Tensor:
    return F.interpolate(scores, scale_factor=_STRIDE_PX, mode="bilinear", align_corners=False)
