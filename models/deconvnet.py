"""DeconvNet: VGG-16 down to one vector per 32x32 pixels, and its mirror image of unpooling and deconvolution.

Noh, Hong, Han (2015), "Learning Deconvolution Network for Semantic Segmentation", doi:10.1109/ICCV.2015.178, figure 2.
VGG-16 with batch normalization after every convolution. The authors' 224x224 input makes fc6 a single 7x7 position,
convolved without padding; here fc6 and its transpose are zero-padded, so that sizes can be any multiple of 32.
"""

from __future__ import annotations

from torch import nn

from models.layers.backbones import mirror_vgg16
from models.layers.blocks import convolution, initialize, transposed_convolution
from models.segnet import SegNet


class DeconvNet(SegNet):
    """DeconvNet on VGG-16: SegNet with another decoder.

    Parameters
    ----------
    width : int
        Channels of the first level, 64 in VGG-16; fc6 and fc7 have 64 times as many.
    """

    paper = "Noh et al. 2015, doi:10.1109/ICCV.2015.178"

    def add_decoder(self, width: int, num_classes: int) -> None:
        """Add the layers between the last pooling and the logits."""
        self.bottom = nn.Sequential(
            *convolution(8 * width, 64 * width, kernel=7),
            *convolution(64 * width, 64 * width, kernel=1),
            *transposed_convolution(64 * width, 8 * width, kernel=7),
        )
        self.decoder = mirror_vgg16(width, transposed_convolution)
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)
        self.bottom.apply(initialize)
