"""PSPNet: a dilated ResNet, and the averages of its features over the image at four scales.

Zhao, Shi, Qi, Wang, Jia (2017), "Pyramid Scene Parsing Network", doi:10.1109/CVPR.2017.660, figure 3. Its pyramid
depends on the whole input: tiles cannot be exact, and are blended.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import convolution, initialize
from models.layers.dilated_resnet import DilatedResNet, head

_BINS = (1, 2, 3, 6)


class PSPNet(DilatedResNet):
    """PSPNet; the parameters are those of :class:`DilatedResNet`."""

    paper = "Zhao et al. 2017, doi:10.1109/CVPR.2017.660"
    auxiliary_weight = 0.4

    def add_head(self, num_classes: int) -> None:
        """Add the layers of :meth:`score`."""
        wide = self.encoder.channels[-1]
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *convolution(wide, wide // 4, kernel=1, bias=False))
            for bins in _BINS
        ).apply(initialize)
        self.head = head(2 * wide, wide // 4, num_classes, dropout=nn.Dropout2d(0.1))

    def score(self, features: Tensor) -> Tensor:
        """Return the scores of the features and of their averages over 1, 2², 3² and 6² regions of the image."""
        levels = [
            F.interpolate(average(features), features.shape[-2:], mode="bilinear", align_corners=False)
            for average in self.pyramid
        ]  # each (N, C / 4, H / 8, W / 8)
        scores: Tensor = self.head(torch.cat([features, *levels], dim=1))
        return scores
