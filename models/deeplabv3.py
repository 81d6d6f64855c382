"""DeepLabv3: a dilated ResNet, and its features seen through holes of four sizes and as one average of the image.

Chen, Papandreou, Schroff, Adam (2017), "Rethinking Atrous Convolution for Semantic Image Segmentation",
arXiv:1706.05587, figure 5, with output stride 8. The image average looks at the whole input: tiles of one slide cannot
agree exactly, and are blended. Layers as in torchvision's DeepLabv3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import RESNETS, ResNet, load_resnet
from models.blocks import check_at_least_one, check_choice, convolution, initialize
from models.interface import SegmentationModel

_RATES = (12, 24, 36)
_AUXILIARY_WEIGHT = 0.5


class DeepLabV3(SegmentationModel):
    """DeepLabv3 on a ResNet of output stride 8.

    Parameters
    ----------
    in_channels, num_classes : int
        Channels of the image and classes of the logits.
    width : int
        Channels of the first stage of the ResNet, 64 as published.
    depth : {50, 101, 152}
        Of the ResNet.
    auxiliary : bool
        A second head on the third stage, used in training with weight 0.5.
    """

    paper = "Chen et al. 2017, arXiv:1706.05587"

    def __init__(
        self, *, in_channels: int, num_classes: int, width: int = 64, depth: int = 50, auxiliary: bool = True
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        check_choice("depth", depth, RESNETS[2:])
        check_choice("auxiliary", auxiliary, (True, False))
        self.stride_px, self.backbone = 8, f"resnet{depth}"
        hidden = 4 * width
        self.encoder = ResNet(depth, in_channels=in_channels, width=width, output_stride=self.stride_px)
        *_, third, fourth = self.encoder.channels
        self.atrous = nn.ModuleList(
            [nn.Sequential(*convolution(fourth, hidden, kernel=1, bias=False))]
            + [nn.Sequential(*convolution(fourth, hidden, dilation=rate, bias=False)) for rate in _RATES]
        )
        self.average = nn.Sequential(nn.AdaptiveAvgPool2d(1), *convolution(fourth, hidden, kernel=1, bias=False))
        self.head = nn.Sequential(
            *convolution((len(_RATES) + 2) * hidden, hidden, kernel=1, bias=False),
            nn.Dropout(0.5),
            *convolution(hidden, hidden, bias=False),
            nn.Conv2d(hidden, num_classes, kernel_size=1),
        )
        self.auxiliary = _auxiliary_head(third, num_classes) if auxiliary else None
        nn.ModuleList([self.atrous, self.average, self.head]).apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        return self._parse(self.encoder(image)[-1])

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return the logits, and with weight 0.5 those of the auxiliary head."""
        *_, third, fourth = self.encoder(image)
        if self.auxiliary is None:
            return [(1.0, self._parse(fourth))]
        return [(1.0, self._parse(fourth)), (_AUXILIARY_WEIGHT, self._enlarge(self.auxiliary(third)))]

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the ResNet without its classifier."""
        load_resnet(self.encoder, state)

    def _parse(self, features: Tensor) -> Tensor:
        views = [look(features) for look in self.atrous]  # each (N, hidden, H / 8, W / 8)
        views.append(self.average(features).expand(-1, -1, *features.shape[-2:]))
        return self._enlarge(self.head(torch.cat(views, dim=1)))

    def _enlarge(self, scores: Tensor) -> Tensor:
        return F.interpolate(scores, scale_factor=self.stride_px, mode="bilinear", align_corners=False)


def _auxiliary_head(wide: int, num_classes: int) -> nn.Sequential:
    layers = [*convolution(wide, wide // 4, bias=False), nn.Dropout(0.1), nn.Conv2d(wide // 4, num_classes, 1)]
    return nn.Sequential(*layers).apply(initialize)
