"""Networks that detect objects: each object has a class, a score and a mask, and the logits are painted from them.

So such a network is validated and drawn like any other, and a slide has its objects beside the labels of its pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.base.detection import Detection, paint_logits
from models.base.geometry import Geometry
from models.base.interface import SegmentationModel


class DetectionModel(SegmentationModel):
    """A network that detects objects.

    Attributes
    ----------
    largest_object_px
        Side of the box of the largest object that it is made for.
    """

    largest_object_px: int

    @cached_property
    def geometry(self) -> Geometry:
        """The stride, and the largest object. The context is global: detections compete with each other."""
        return Geometry(stride_px=self.stride_px, context_px=None, object_px=self.largest_object_px)

    @abstractmethod
    def detect(self, image: Tensor) -> list[list[Detection]]:
        """Return the objects of each of (N, in_channels, H, W) images, in evaluation mode, without gradients."""

    @abstractmethod
    def losses(self, image: Tensor, classes: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Return the losses of a batch by name; their sum is to be minimized.

        Parameters
        ----------
        image : (N, in_channels, H, W) float tensor
        classes : (N, H, W) int64 tensor
        ids : (N, H, W) tensor
            Object of each pixel, 0 = background.
        """

    @abstractmethod
    def outline(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) values by all layers at their usual sizes, to count operations and memory.

        Nothing depends on the values of pixels, so that the device can be ``meta``.
        """

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits: those of :func:`paint_logits`."""
        if image.is_meta:
            return self.outline(image)
        shape = (image.shape[2], image.shape[3])
        painted = [paint_logits(found, shape, num_classes=self.num_classes) for found in self.detect(image)]
        return torch.from_numpy(np.stack(painted)).to(image)

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return :meth:`outline`, whose memory is that of a step; the training is by :meth:`losses`."""
        return [(1.0, self.outline(image))]
