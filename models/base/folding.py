"""Folding of batch normalization into the convolution before it: the same function, but faster.

Once trained, batch normalization is a scale and a shift per channel, which the weights of the convolution can include
(Jacob et al. 2018, doi:10.1109/CVPR.2018.00286, section 3.2).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.base.geometry import round_up
from models.base.interface import SegmentationModel

_TOLERANCE = 1e-4  # of the largest logit: above rounding of float32, far below a different function


def fold_batch_norm(network: SegmentationModel) -> int:
    """Fold every batch normalization that directly follows a convolution, in place.

    Pairs are found in a forward pass. The logits are checked on a copy; if they would change, the network is not
    changed.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode. It cannot be trained afterwards.

    Returns
    -------
    int
        Number of layers that were folded.
    """
    image, tried = noise_for(network), copy.deepcopy(network)
    with torch.no_grad():
        before = tried(image)
        pairs = _pairs(tried, image)
        _fold(tried, pairs)
        after = tried(image)
        if (after - before).abs().max() > _TOLERANCE * before.abs().max():
            return 0
        _fold(network, pairs)
    return len(pairs)


def _fold(network: nn.Module, pairs: list[tuple[str, str]]) -> None:
    for name_of_convolution, name_of_normalization in pairs:
        convolution: Any = network.get_submodule(name_of_convolution)
        normalization: Any = network.get_submodule(name_of_normalization)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            normalization.running_mean,
            normalization.running_var,
            normalization.eps,
            normalization.weight,
            normalization.bias,
            transpose=isinstance(convolution, nn.ConvTranspose2d),
        )
        network.set_submodule(name_of_normalization, nn.Identity())


def _pairs(network: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Return pairs of a convolution and the batch normalization that takes all its outputs, and nothing else."""
    maker: dict[tuple[int, int], str] = {}  # by tensor and by how often it was changed in place
    held: list[Tensor] = []  # keeps tensors alive, so that ids are unique
    made, taken = Counter[str](), Counter[tuple[str, str]]()

    def watch(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if type(module) is nn.BatchNorm2d:  # others may have an activation inside
            taken[maker.get((id(inputs[0]), inputs[0]._version), ""), name] += 1
        elif not isinstance(module, nn.BatchNorm2d):
            made[name] += 1
            maker[id(output), output._version] = name
            held.append(output)

    run_watched(network, image, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d), watch)
    partners = Counter(normalization for _, normalization in taken)
    return [
        (convolution, normalization)
        for (convolution, normalization), times in taken.items()
        if convolution and times == made[convolution] and partners[normalization] == 1
    ]


def run_watched(
    network: nn.Module, image: Tensor, kinds: tuple[type[nn.Module], ...], watch: Callable[..., None]
) -> Tensor:
    """Return the logits of an image; ``watch(name, layer, inputs, output)`` is called for the layers of some kinds."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]
    with ExitStack() as hooks:
        for name, layer in layers:
            hooks.callback(layer.register_forward_hook(partial(watch, name)).remove)
        logits: Tensor = network(image)
    return logits


def noise_for(network: SegmentationModel, *, batch: int = 1, cells: tuple[int, int] = (2, 2)) -> Tensor:
    """Return small images of noise that suit the network, whose logits cover at least ``cells`` strides."""
    geometry = network.geometry
    rows, columns = (
        round_up(2 * geometry.margin_px + count * geometry.stride_px, geometry.stride_px) + geometry.remainder_px
        for count in cells
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, network.in_channels, rows, columns, generator=generator)
    return image.to(next(network.parameters()))
