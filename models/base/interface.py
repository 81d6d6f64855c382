"""The interface of all architectures: an image goes in, logits come out; the geometry is measured."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from models.base.context import measure_context_px
from models.base.geometry import Geometry
from models.base.heads import Head
from models.base.imagenet import imagenet_weights


class SegmentationModel(nn.Module, ABC):
    """A network from images to logits, built as ``Architecture(in_channels=..., num_classes=..., **options)``.

    ``in_channels`` are those of the image, ``num_classes`` those of the output; the options are the parameters of each
    architecture.

    Attributes
    ----------
    paper
        Where the architecture was published.
    narrow_options
        Options of the smallest network of the same geometry, on which the context is measured.
    backbone
        Name of the torchvision classifier whose weights :meth:`load_backbone` takes; ``None`` without one.
    encoder
        The part that :meth:`load_backbone` fills, and that can learn more slowly than the rest.
    least_batch
        Smallest batch for training: 2 if batch normalization follows an average of the whole image.
    name, chosen_options, heads
        Architecture, options and heads given to :func:`models.build`.
    stride_px, margin_px, remainder_px
        As in :class:`Geometry`.
    """

    paper: ClassVar[str]
    narrow_options: ClassVar[Mapping[str, Any]] = {"width": 1}
    least_batch: ClassVar[int] = 1
    backbone: str | None = None
    encoder: Any
    name: str
    chosen_options: Mapping[str, Any]
    heads: tuple[Head, ...] = ()
    stride_px: int = 1
    margin_px: int = 0
    remainder_px: int = 0

    _arguments: dict[str, Any]

    def __new__(cls, **arguments: Any) -> Self:
        """Keep the arguments, to build a narrow copy of the network."""
        network = super().__new__(cls)
        network.__dict__["_arguments"] = arguments
        return network

    @property
    def in_channels(self) -> int:
        """Channels of the image."""
        return int(self._arguments["in_channels"])

    @property
    def num_classes(self) -> int:
        """Channels of the output that are logits of classes; the others are heads (:mod:`models.base.heads`)."""
        return int(self._arguments["num_classes"]) - len(self.heads)

    @cached_property
    def geometry(self) -> Geometry:
        """Stride, margins and the measured context (:mod:`models.base.context`)."""
        sampling = Geometry(
            stride_px=self.stride_px, context_px=None, margin_px=self.margin_px, remainder_px=self.remainder_px
        )
        # The first use may be in inference mode; it draws no random number that others see
        with torch.inference_mode(mode=False), torch.random.fork_rng(devices=[]):
            narrow = type(self)(**(self._arguments | {"in_channels": 1, "num_classes": 1} | dict(self.narrow_options)))
            return sampling.with_context(measure_context_px(narrow, sampling))

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of an image, and its heads in the channels after them.

        Parameters
        ----------
        image : (N, in_channels, H, W) float tensor
            Normalized intensities; H and W leave ``geometry.remainder_px`` when divided by the stride.

        Returns
        -------
        (N, num_classes + heads, H - 2 margin, W - 2 margin) float tensor
        """

    def logits_to_train(self, image: Tensor) -> list[tuple[float, Tensor]]:
        """Return the weight of the loss and the logits of every output; the first is that of ``forward``."""
        return [(1.0, self(image))]

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Fill the encoder with the weights of the torchvision classifier :attr:`backbone`.

        Raises
        ------
        ValueError
            If the network has no backbone, or the weights do not fit.
        """
        raise ValueError("this architecture has no backbone")

    def load_imagenet(self) -> None:
        """Fill the encoder with weights trained on ImageNet.

        Raises
        ------
        ValueError
            If the network has no backbone, or one of another width.
        OSError
            If the weights cannot be downloaded.
        """
        if self.backbone is None:
            raise ValueError("this architecture has no backbone with ImageNet weights")
        self.load_backbone(imagenet_weights(self.backbone))

    @classmethod
    def options(cls, **given: str) -> dict[str, object]:  # noqa: ARG003
        """Return the options with their defaults; ``given`` are the arguments that are part of the name."""
        parameters = inspect.signature(cls.__init__).parameters
        return {name: parameter.default for name, parameter in parameters.items() if name not in _NOT_OPTIONS}


_NOT_OPTIONS = {"self", "in_channels", "num_classes"}
