"""DeconvNet: VGG-16 down to one vector per 32x32 pixels, and its mirror image of unpooling and deconvolution.

Noh, Hong, Han (2015), "Learning Deconvolution Network for Semantic Segmentation", doi:10.1109/ICCV.2015.178, figure 2.
VGG-16 with batch normalization after every convolution. The authors' 224x224 input makes fc6 a single 7x7 position,
convolved without padding; here fc6 and its transpose are zero-padded, so that sizes can be any multiple of 32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.backbones import VGG16, load_vgg16, mirror_vgg16, vgg16_levels
from models.layers.blocks import check_at_least_one, convolution, initialize, transposed_convolution
from models.layers.upsampling import upsample


class DeconvNet(SegmentationModel):
    """DeconvNet on VGG-16.

    Parameters
    ----------
    in_channels, num_classes : int
        Channels of the image and classes of the logits.
    width : int
        Channels of the first level, 64 in VGG-16; fc6 and fc7 have 64 times as many.
    """

    paper = "Noh et al. 2015, doi:10.1109/ICCV.2015.178"
    backbone = "vgg16_bn"

    def __init__(self, *, in_channels: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        self.stride_px = 2 ** len(VGG16)
        self.encoder = vgg16_levels(in_channels, width, batch_norm=True)
        self.bottom = nn.Sequential(
            *convolution(8 * width, 64 * width, kernel=7),
            *convolution(64 * width, 64 * width, kernel=1),
            *transposed_convolution(64 * width, 8 * width, kernel=7),
        )
        self.decoder = mirror_vgg16(width, transposed_convolution)
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        self.bottom.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        indices = []
        for level in self.encoder:
            image, where = F.max_pool2d(level(image), kernel_size=2, return_indices=True)
            indices.append(where)
        image = self.bottom(image)  # (N, 8 width, H / 32, W / 32)
        for level in self.decoder:
            image = level(upsample(image, "max_unpooling", indices.pop()))
        logits: Tensor = self.head(image)
        return logits

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load VGG-16 with batch normalization; its fully connected layers are not used."""
        load_vgg16(self.encoder, state)
