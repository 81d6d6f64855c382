"""Measurement of the context of a network: how far around a pixel its logits depend on the image.

Gradients show which pixels matter. Weights are made positive, and max pooling and unpooling are replaced by averages:
then no gradient cancels or is blocked by a ReLU, and a pixel has a gradient exactly if the logits can depend on it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.base.geometry import Geometry, round_up

_WIDEST_PX = 4096  # a context that does not fit into half of this counts as global
_WEIGHTED = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def measure_context_px(network: nn.Module, sampling: Geometry) -> int | None:
    """Return how far beyond a stride-aligned cell its logits depend on the image.

    Parameters
    ----------
    network : nn.Module
        From (1, 1, H, W) images to (1, 1, H, W) logits. Its weights are overwritten.
    sampling : Geometry
        Its stride, margin and remainder; the context is ignored.

    Returns
    -------
    int or None
        None if the logits depend on the whole image, or if it cannot be measured.

    Notes
    -----
    The image is a strip, one cell high if the network is padded: for square kernels, rows and columns have the same
    context.
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
        if not len(seen):  # normalization across channels, which are all equal here
            return None
        context = max(first - int(seen.min()), int(seen.max()) - last)
        if context < first - margin - stride:  # else it may be cut off by the image
            return context
        width = 2 * (width - sampling.remainder_px) + sampling.remainder_px
    return None


def _make_averaging(module: nn.Module) -> None:
    """Turn a layer with weights into an average, and make the output of a normalization positive."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.constant_(parameter, parameter.shape[0] / parameter.numel())
        else:
            nn.init.constant_(parameter, float(name == "weight" or not isinstance(module, _WEIGHTED)))


def _columns_used(network: nn.Module, image: Tensor, columns: slice) -> Tensor:
    """Return the columns of the image that these columns of the logits depend on."""
    image = image.clone().requires_grad_()
    with _AveragePooling():
        network(image)[..., columns].sum().backward()
    assert image.grad is not None
    return image.grad[0, 0].abs().sum(dim=0).nonzero().flatten()


class _AveragePooling(TorchFunctionMode):
    """Replaces max pooling and unpooling by averages."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or its replacement."""
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
