"""SegNet: an encoder and its mirror image, up-sampled by the indices of the poolings.

Badrinarayanan, Kendall, Cipolla (2017), "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", doi:10.1109/TPAMI.2016.2644615. VGG-16 with batch normalization; the indices are the only connection
between encoder and decoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.backbones import VGG16, load_vgg16, mirror_vgg16, vgg16_levels
from models.layers.blocks import check_at_least_one, convolution, initialize
from models.layers.upsampling import upsample


class SegNet(SegmentationModel):
    """SegNet on VGG-16.

    Parameters
    ----------
    width : int
        Channels of the first level, 64 in VGG-16.
    """

    paper = "Badrinarayanan et al. 2017, doi:10.1109/TPAMI.2016.2644615"
    backbone = "vgg16_bn"

    def __init__(self, *, in_channels: int, num_classes: int, width: int = 64) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        self.stride_px = 2 ** len(VGG16)
        self.encoder = vgg16_levels(in_channels, width, batch_norm=True)
        self.add_decoder(width, num_classes)

    def add_decoder(self, width: int, num_classes: int) -> None:
        """Add the layers between the last pooling and the logits."""
        self.bottom: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()
        self.decoder = mirror_vgg16(width, convolution)
        self.decoder[-1] = nn.Sequential(
            *convolution(width, width), nn.Conv2d(width, num_classes, kernel_size=3, padding=1)
        ).apply(initialize)

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
