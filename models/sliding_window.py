"""The pixel classifier before U-Net: a patch goes in, the class of its centre pixel comes out.

Ciresan, Giusti, Gambardella, Schmidhuber (2012), "Deep Neural Networks Segment Neuronal Membranes in Electron
Microscopy Images", NeurIPS, network N4: 95x95 pixels, four convolutions, each followed by 2x2 max-pooling, and two
fully connected layers; with ReLU instead of scaled tanh.

Patch by patch, every pixel is computed 9,000 times. Here every layer runs once over the image, dilated by the stride of
the poolings before it (Giusti et al. 2013, doi:10.1109/ICIP.2013.6738831; Long et al. 2015), with the same logits.
:meth:`classify` is the network for patches, with the same weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.base.interface import SegmentationModel
from models.layers.blocks import check_at_least_one, initialize

_KERNELS = (4, 5, 4, 4)
WINDOW_PX = 95


class SlidingWindow(SegmentationModel):
    """The network of Ciresan et al., for all pixels of an image at once.

    Parameters
    ----------
    width : int
        Channels of every convolution, 48 as published.
    hidden : int
        Units of the first fully connected layer, 200 as published.
    """

    paper = "Ciresan et al. 2012, NeurIPS 25, 2843-2851"
    margin_px = WINDOW_PX // 2

    def __init__(self, *, in_channels: int, num_classes: int, width: int = 48, hidden: int = 200) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width, hidden=hidden)
        channels = [in_channels, *(width for _ in _KERNELS)]
        self.encoder = nn.ModuleList(
            nn.Conv2d(narrow, wide, kernel)
            for narrow, wide, kernel in zip(channels[:-1], channels[1:], _KERNELS, strict=True)
        )
        self.hidden = nn.Conv2d(width, hidden, kernel_size=3)
        self.head = nn.Conv2d(hidden, num_classes, kernel_size=1)
        self.apply(initialize)

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H - 94, W - 94) logits, one for every pixel with a whole window around it."""
        dilation = 1
        for layer in self.encoder:
            image = F.relu(F.conv2d(image, layer.weight, layer.bias, dilation=dilation))
            image = F.max_pool2d(image, kernel_size=2, stride=1, dilation=dilation)
            dilation *= 2
        image = F.relu(F.conv2d(image, self.hidden.weight, self.hidden.bias, dilation=dilation))
        logits: Tensor = self.head(image)
        return logits

    def classify(self, windows: Tensor) -> Tensor:
        """Return (N, num_classes) logits for the centres of (N, in_channels, 95, 95) windows, as published."""
        for layer in self.encoder:
            windows = F.max_pool2d(F.relu(layer(windows)), kernel_size=2)
        logits: Tensor = self.head(F.relu(self.hidden(windows)))
        return logits[..., 0, 0]
