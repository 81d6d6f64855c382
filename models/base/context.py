"""Measurement of the context of a network: how far around a pixel its logits depend on the image.

Columns of the image are NaN. Every operation of a network with a NaN among its inputs has NaN as its result, whatever
the weights and activations: so the logits that stay finite are those that cannot depend on these columns. Whether the
network is the same function in every window, as exact tiles need it, is then tried on two windows with random weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.base.geometry import Geometry, round_up

_WIDTHS_PX = (1024, 2048, 4096)  # of the image; a context that does not fit into 3/8 of the last counts as global
_CELLS = 3  # that are compared in two windows
_DRAWS = 8  # of random weights, until logits differ from pixel to pixel
_ROUNDING = 1e-9  # of the largest logit: float64 has 1e-16, and a hundred layers a few digits less


def measure_context_px(network: nn.Module, sampling: Geometry) -> int | None:
    """Return how far beyond a stride-aligned cell its logits depend on the image.

    Parameters
    ----------
    network : nn.Module
        From (N, 1, H, W) images to (N, 1, H, W) logits. Its weights are overwritten.
    sampling : Geometry
        Its stride, margin and remainder; the context is ignored.

    Returns
    -------
    int or None
        None if the logits depend on the whole image, on its size or on the position in it.

    Notes
    -----
    The image is a strip, one cell high if the network is padded: first a row of cells, then a column.
    """
    views = [network.float().eval(), _Transposed(network).eval()]
    context = 0
    for view in views:
        found = _context_px(view, sampling)
        if found is None:
            return None
        context = max(context, found)
    geometry = sampling.with_context(context)
    network.double()
    return context if all(_is_alike_in_every_window(view, geometry) for view in views) else None


class _Transposed(nn.Module):
    """A network whose rows and columns are exchanged."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.mT)
        return logits.mT


def _context_px(network: nn.Module, sampling: Geometry) -> int | None:
    """Return the larger one of the contexts to the left and to the right."""
    stride, rest = sampling.stride_px, sampling.remainder_px
    for narrowest in _WIDTHS_PX:
        width, ends = round_up(narrowest, stride) + rest, round_up(narrowest // 8, stride)
        left, right = _touched(network, sampling, width, ends, ends)
        if left < width // 2 < right:
            break
    else:
        return None
    reach = max(left - ends + 1, width - ends - right)
    if reach < 0:  # NaN has no effect: not a network of numbers
        return None
    # The fewest columns at an end that touch as many cells as a whole stride of them
    width = round_up(2 * reach, stride) + 4 * stride + rest
    cells = [column // stride for column in _touched(network, sampling, width, stride, stride)]
    least, enough = [1, 1], [stride, stride]
    while least != enough:
        tried = [(low + high) // 2 for low, high in zip(least, enough, strict=True)]
        found = _touched(network, sampling, width, *tried)
        for side, column in enumerate(found):
            if column // stride == cells[side]:
                enough[side] = tried[side]
            else:
                least[side] = tried[side] + 1
    first, last = enough[0] - 1, width - enough[1]
    return max(cells[0] * stride - first, last - (cells[1] * stride + stride - 1), 0)


@torch.no_grad()
def _touched(network: nn.Module, sampling: Geometry, width: int, left: int, right: int) -> tuple[int, int]:
    """Return the last column that the left end of an image touches, and the first that its right end touches.

    ``left`` and ``right`` are the columns of the ends. Without any: -1 and ``width``; the middle if they overlap.
    """
    image = torch.ones(1, 1, _rows(sampling), width)
    image[..., :left] = image[..., width - right :] = torch.nan
    with _NearestUnpooling():
        logits = network(image)
    touched = (logits.isnan().any(dim=2).flatten().nonzero().flatten() + sampling.margin_px).tolist()
    middle = width // 2
    before = max((column for column in touched if column <= middle), default=-1)
    return before, min((column for column in touched if column >= middle), default=width)


def _rows(sampling: Geometry) -> int:
    """Return the fewest rows of an image that the network takes."""
    rows = sampling.remainder_px or sampling.stride_px
    while rows <= 2 * sampling.margin_px:
        rows += sampling.stride_px
    return rows


class _NearestUnpooling(TorchFunctionMode):
    """Replaces max unpooling, which moves a value within its cell, by copies of the value in the whole cell."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch, or its replacement."""
        if func is F.max_unpool2d:
            return F.interpolate(args[0], scale_factor=2, mode="nearest")
        return func(*args, **dict(kwargs or {}))


def _is_alike_in_every_window(network: nn.Module, geometry: Geometry) -> bool:
    """Return whether cells have the same logits in two windows of other places and sizes, for random weights."""
    stride, halo, margin = geometry.stride_px, geometry.halo_px, geometry.margin_px
    generator = torch.Generator().manual_seed(0)
    inner = _CELLS * stride
    image = torch.rand(1, 1, _rows(geometry), inner + 2 * halo + 2 * stride, generator=generator, dtype=torch.float64)
    second = image[..., stride : stride + inner + 2 * halo]
    for number in range(_DRAWS):
        _draw_weights(network, geometry, generator, shift=number / 4)
        here, there = _run(network, geometry, image), _run(network, geometry, second)
        wide = here[..., halo - margin + stride :][..., :inner]
        narrow = there[..., halo - margin :][..., :inner]
        size = wide.abs().max() * _ROUNDING
        if (wide - wide[..., :1]).abs().max() > size:  # else each ReLU of some layer is 0
            return bool((wide - narrow).abs().max() <= size)
    return False


@torch.no_grad()
def _run(network: nn.Module, geometry: Geometry, image: Tensor) -> Tensor:
    logits: Tensor = network(image[..., : geometry.input_px(image.shape[-1])])
    return logits


@torch.no_grad()
def _draw_weights(network: nn.Module, geometry: Geometry, generator: torch.Generator, *, shift: float) -> None:
    """Draw random weights whose mean is ``shift`` standard deviations.

    The statistics of batch normalization are those of noise, so that no activation is saturated everywhere.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            deviation = (2 * parameter.shape[0] / parameter.numel()) ** 0.5
            parameter.normal_(mean=shift * deviation, std=deviation, generator=generator)
        else:
            parameter.normal_(mean=float(name.endswith("weight")), std=0.2, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            module.train()
    columns = _rows(geometry) + 4 * geometry.stride_px
    network(torch.rand(2, 1, _rows(geometry), columns, generator=generator, dtype=torch.float64))
    network.eval()
