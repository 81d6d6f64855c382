"""Measurements of a network: how far it looks, how many parameters it has, how much it computes.

The context is found by gradient probing. Weights are made positive, and pooling and unpooling by the maximum become
averages over what they choose from: then no gradient cancels, dies in a ReLU or misses a choice, and a pixel has a
gradient if and only if the logits can depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.base.geometry import Geometry, round_up

if TYPE_CHECKING:
    pass

_WIDEST_PX = 4096  # a context that does not fit into half of this is called global
_WEIGHTED = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def measure_context_px(network: nn.Module, sampling: Geometry) -> int | None:
    """Return how many pixels beyond a stride-aligned cell its logits depend on.

    Parameters
    ----------
    network : nn.Module
        From (1, 1, H, W) images to (1, 1, H, W) logits. It is spoilt: build one for this.
    sampling : Geometry
        Its stride, margin and remainder; the context is not looked at.

    Returns
    -------
    int or None
        None where the logits depend on the whole image, however wide it is, or where it cannot be told.

    Notes
    -----
    The image is a strip, one cell high where the network is padded: contexts of rows and of columns are equal for
    square kernels.
    """
    network.double().eval().apply(_make_averaging)
    stride, margin = sampling.stride_px, sampling.margin_px
    height = sampling.remainder_px or stride
    while height <= 2 * margin:
        height += stride
    width = round_up(512, stride) + sampling.remainder_px
    while width <= _WIDEST_PX:
        image = torch.linspace(1, 2, width, dtype=torch.float64).expand(1, 1, height, width)
        first = width // 2 // stride * stride
        last = first + stride - 1
        seen = _columns_used(network, image, slice(first - margin, last - margin + 1))
        if not len(seen):  # normalized across channels that are all equal here: nothing can be said
            return None
        context = max(first - int(seen.min()), int(seen.max()) - last)
        if context < first - margin - stride:  # else it may end where the image ends
            return context
        width = 2 * (width - sampling.remainder_px) + sampling.remainder_px
    return None


def _make_averaging(module: nn.Module) -> None:
    """Make a layer with weights an average over what it sees, and keep what a normalization returns positive."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.constant_(parameter, parameter.shape[0] / parameter.numel())
        else:
            nn.init.constant_(parameter, float(name == "weight" or not isinstance(module, _WEIGHTED)))


def _columns_used(network: nn.Module, image: Tensor, columns: slice) -> Tensor:
    """Return the indices of the columns of the image that these columns of the logits depend on."""
    image = image.clone().requires_grad_()
    with _AveragePooling():
        network(image)[..., columns].sum().backward()
    assert image.grad is not None
    return image.grad[0, 0].abs().sum(dim=0).nonzero().flatten()


class _AveragePooling(TorchFunctionMode):
    """Let what chooses one of four pixels look at all four."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the call of a function of torch."""
        options = dict(kwargs or {})
        if func in {F.max_pool2d, F.max_pool2d_with_indices}:
            image, size = args
            channels = image.shape[1]
            pooled = F.conv2d(
                image,
                image.new_full((channels, 1, size, size), 1 / size**2),
                stride=options["stride"] or size,
                padding=options["padding"],
                dilation=options["dilation"],
                groups=channels,
            )
            return (pooled, pooled) if options["return_indices"] else pooled
        if func is F.max_unpool2d:
            return F.interpolate(args[0], scale_factor=2, mode="nearest")
        return func(*args, **options)
