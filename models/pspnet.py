"""PSPNet: a dilated ResNet, and the averages of its features over the image at four scales beside them.

Zhao, Shi, Qi, Wang, Jia (2017), "Pyramid Scene Parsing Network", doi:10.1109/CVPR.2017.660, figure 3. Its pyramid
looks at the whole input: tiles of one slide cannot agree exactly, and are blended.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import RESNETS, ResNet, load_resnet
from models.blocks import check_at_least_one, check_choice, convolution, initialize
from models.interface import SegmentationModel

_BINS = (1, 2, 3, 6)
_AUXILIARY_WEIGHT = 0.4


class PSPNet(SegmentationModel):
    """PSPNet on a ResNet of output stride 8.

    Parameters
    ----------
    in_channels, num_classes : int
        Channels of the image and classes of the logits.
    width : int
        Channels of the first stage of the ResNet, 64 as published.
    depth : {50, 101, 152}
        Of the ResNet.
    auxiliary : bool
        A second head on the third stage, used in training with weight 0.4.
    """

    paper = "Zhao et al. 2017, doi:10.1109/CVPR.2017.660"

    def __init__(
        self, *, in_channels: int, num_classes: int, width: int = 64, depth: int = 50, auxiliary: bool = True
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        check_choice("depth", depth, RESNETS[2:])
        check_choice("auxiliary", auxiliary, (True, False))
        self.stride_px, self.backbone = 8, f"resnet{depth}"
        self.encoder = ResNet(depth, in_channels=in_channels, width=width, output_stride=self.stride_px)
        *_, third, fourth = self.encoder.channels
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *convolution(fourth, fourth // 4, kernel=1, bias=False))
            for bins in _BINS
        )
        self.head = _head(2 * fourth, fourth // 4, num_classes, dropout=0.1)
        self.auxiliary = _head(third, third // 4, num_classes, dropout=0.1) if auxiliary else None
        self.pyramid.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        return self._parse(self.encoder(image)[-1])

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return the logits, and with weight 0.4 those of the auxiliary head."""
        *_, third, fourth = self.encoder(image)
        if self.auxiliary is None:
            return [(1.0, self._parse(fourth))]
        return [(1.0, self._parse(fourth)), (_AUXILIARY_WEIGHT, self._enlarge(self.auxiliary(third)))]

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the ResNet without its classifier."""
        load_resnet(self.encoder, state)

    def _parse(self, features: Tensor) -> Tensor:
        levels = [
            F.interpolate(pool(features), features.shape[-2:], mode="bilinear", align_corners=False)
            for pool in self.pyramid
        ]  # each (N, C / 4, H / 8, W / 8)
        return self._enlarge(self.head(torch.cat([features, *levels], dim=1)))

    def _enlarge(self, scores: Tensor) -> Tensor:
        return F.interpolate(scores, scale_factor=self.stride_px, mode="bilinear", align_corners=False)


def _head(wide: int, hidden: int, num_classes: int, *, dropout: float) -> nn.Sequential:
    """Return 3x3 convolution, dropout, 1x1 convolution to the classes."""
    layers = [*convolution(wide, hidden, bias=False), nn.Dropout2d(dropout), nn.Conv2d(hidden, num_classes, 1)]
    return nn.Sequential(*layers).apply(initialize)
