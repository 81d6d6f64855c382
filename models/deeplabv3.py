"""DeepLabv3: a dilated ResNet, and convolutions of its features with four dilations, beside their average.

Chen, Papandreou, Schroff, Adam (2017), "Rethinking Atrous Convolution for Semantic Image Segmentation",
arXiv:1706.05587, figure 5, with output stride 8. The average depends on the whole input: tiles cannot be exact, and are
blended. Layers as in torchvision's DeepLabv3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.blocks import convolution, initialize
from models.layers.dilated_resnet import DilatedResNet, head

_RATES = (12, 24, 36)


class DeepLabV3(DilatedResNet):
    """DeepLabv3; the parameters are those of :class:`DilatedResNet`."""

    paper = "Chen et al. 2017, arXiv:1706.05587"
    auxiliary_weight = 0.5

    def add_head(self, num_classes: int) -> None:
        """Add the layers of :meth:`score`."""
        wide = self.encoder.channels[-1]
        hidden = wide // 8  # 256 as published
        self.atrous = nn.ModuleList(
            [nn.Sequential(*convolution(wide, hidden, kernel=1, bias=False))]
            + [nn.Sequential(*convolution(wide, hidden, dilation=rate, bias=False)) for rate in _RATES]
        ).apply(initialize)
        self.average = nn.Sequential(nn.AdaptiveAvgPool2d(1), *convolution(wide, hidden, kernel=1, bias=False))
        self.average.apply(initialize)
        self.project = nn.Sequential(
            *convolution((len(_RATES) + 2) * hidden, hidden, kernel=1, bias=False), nn.Dropout(0.5)
        ).apply(initialize)
        self.head = head(hidden, hidden, num_classes, dropout=nn.Identity())

    def score(self, features: Tensor) -> Tensor:
        """Return the scores of the dilated convolutions of the features, and of their average."""
        views = [convolve(features) for convolve in self.atrous]  # each (N, hidden, H / 8, W / 8)
        views.append(self.average(features).expand(-1, -1, *features.shape[-2:]))
        scores: Tensor = self.head(self.project(torch.cat(views, dim=1)))
        return scores
