"""Fully convolutional networks: VGG-16 as a dense classifier, whose scores are fused with those of finer levels.

Long, Shelhamer, Darrell (2015), "Fully Convolutional Networks for Semantic Segmentation", CVPR,
doi:10.1109/CVPR.2015.7298965, figure 3. VGG-16 with its fully connected layers as a 7x7 and a 1x1 convolution. All
convolutions are zero-padded to keep the size, where the authors pad the image by 100 pixels and crop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.backbones import VGG16, load_all, load_vgg16, vgg16_levels
from models.layers.blocks import check_at_least_one, initialize
from models.layers.upsampling import bilinear_transposed

_DEEPEST_PX = 32


class _FCN(SegmentationModel):
    """FCN that adds the scores of the levels in ``fused`` (3 is pool4, 2 is pool3) to those of the classifier.

    Parameters
    ----------
    width : int
        Channels of the first level, 64 in VGG-16; fc6 and fc7 have 64 times as many.
    dropout : float
        Probability of dropout after fc6 and fc7, 0.5 as published.
    """

    paper = "Long et al. 2015, doi:10.1109/CVPR.2015.7298965"
    backbone = "vgg16"
    fused: ClassVar[tuple[int, ...]]

    def __init__(self, *, in_channels: int, num_classes: int, width: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        self.stride_px = _DEEPEST_PX
        self.encoder = vgg16_levels(in_channels, width, batch_norm=False)
        self.fc6 = nn.Conv2d(8 * width, 64 * width, kernel_size=7, padding=3).apply(initialize)
        self.fc7 = nn.Conv2d(64 * width, 64 * width, kernel_size=1).apply(initialize)
        self.dropout = nn.Dropout2d(dropout)
        self.score = nn.Conv2d(64 * width, num_classes, kernel_size=1)
        self.score_pools = nn.ModuleDict(
            {str(level): nn.Conv2d(VGG16[level][-1] * width, num_classes, kernel_size=1) for level in self.fused}
        )
        self.twice = nn.ModuleDict({str(level): bilinear_transposed(num_classes, 2) for level in self.fused})
        self.up = bilinear_transposed(num_classes, _DEEPEST_PX // 2 ** len(self.fused))

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        pools = []
        for level in self.encoder:
            image = F.max_pool2d(level(image), kernel_size=2)
            pools.append(image)  # (N, C, H / 2**(level + 1), W / 2**(level + 1))
        image = self.dropout(F.relu(self.fc6(image)))
        image = self.dropout(F.relu(self.fc7(image)))
        scores = self.score(image)
        for level in self.fused:
            scores = self.twice[str(level)](scores) + self.score_pools[str(level)](pools[level])
        logits: Tensor = self.up(scores)
        return logits

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load VGG-16; its fully connected layers become fc6 and fc7 ("convolutionalized", figure 2 of the paper)."""
        load_vgg16(self.encoder, state)
        for number, layer in ((0, self.fc6), (3, self.fc7)):
            kernels = state[f"classifier.{number}.weight"].reshape(layer.weight.shape)
            load_all(layer.state_dict(keep_vars=True), {"weight": kernels, "bias": state[f"classifier.{number}.bias"]})


class FCN32s(_FCN):
    """FCN-32s: the scores of the classifier, up-sampled by 32."""

    fused = ()


class FCN16s(_FCN):
    """FCN-16s: fused with the scores of pool4, up-sampled by 16."""

    fused = (3,)


class FCN8s(_FCN):
    """FCN-8s: fused with the scores of pool4 and pool3, up-sampled by 8."""

    fused = (3, 2)
