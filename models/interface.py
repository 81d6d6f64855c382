"""What every architecture is to the rest of the project: an image in, logits out, and an honest geometry."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod

from torch import Tensor, nn

from models.geometry import Geometry


class SegmentationModel(nn.Module, ABC):
    """A network from images to logits, built as ``Architecture(in_channels=..., num_classes=..., **options)``."""

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """How the network samples its input, and how far it looks."""

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of an image.

        Parameters
        ----------
        image : (N, in_channels, H, W) float tensor
            Normalized intensities, H and W as ``geometry.remainder_px`` asks.

        Returns
        -------
        (N, num_classes, H - 2 margin, W - 2 margin) float tensor
        """

    @classmethod
    def options(cls) -> list[str]:
        """Return the names of the options of this architecture."""
        return [name for name in inspect.signature(cls).parameters if name not in {"in_channels", "num_classes"}]
