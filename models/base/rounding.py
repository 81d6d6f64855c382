"""Networks in bfloat16 whose ends stay exact: the image is not rounded on its way in, nor the logits on their way out.

bfloat16 has 8 bits of mantissa, as many as a pixel of an 8-bit slide has altogether: normalized and rounded,
neighbouring grey values become one, in every pixel that a filter sees. Logits that are rounded tie.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models.base.folding import noise_for
from models.base.interface import SegmentationModel


class Float32Layer(nn.Module):
    """A layer in float32 among others in bfloat16; ``made`` is the type of what it returns."""

    def __init__(self, layer: nn.Module, made: torch.dtype) -> None:
        super().__init__()
        self.layer, self.made = layer, made

    def forward(self, image: Tensor) -> Tensor:
        """Return what the layer makes of an image of any type."""
        made: Tensor = self.layer(image.float())
        return made.to(self.made)


def convert_to_bfloat16(network: SegmentationModel) -> None:
    """Convert a network to bfloat16, in place, but for convolutions that take the image or make the logits.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, in float32, on the processor. Of an ensemble the ends of each member are kept. A network
        that does not work so, as it uses the image elsewhere too, is converted whole.
    """
    ends = {
        f"{prefix}.{name}" if prefix else name: made
        for prefix, part in network.named_modules()
        if isinstance(part, SegmentationModel) and _has_no_members(part)
        for name, made in _ends(part).items()
    }
    tried = copy.deepcopy(network)
    _convert(tried, ends)
    try:
        with torch.no_grad():
            tried(noise_for(tried))
    except RuntimeError:
        ends = {}
    _convert(network, ends)


def _convert(network: SegmentationModel, ends: Mapping[str, torch.dtype]) -> None:
    kept = {name: Float32Layer(copy.deepcopy(network.get_submodule(name)), made) for name, made in ends.items()}
    network.bfloat16()
    for name, layer in kept.items():
        network.set_submodule(name, layer)


def _has_no_members(network: SegmentationModel) -> bool:
    """Say whether a network is made of no others, as an ensemble is."""
    return sum(isinstance(module, SegmentationModel) for module in network.modules()) == 1


@torch.no_grad()
def _ends(network: SegmentationModel) -> dict[str, torch.dtype]:
    """Return the names of the convolutions at the ends, and the type that what they make is to have."""
    image = noise_for(network)
    taken: set[str] = set()
    made: dict[str, Tensor] = {}

    def watch(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0] is image:
            taken.add(name)
        made[name] = output

    hooks = [
        module.register_forward_hook(partial(watch, name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    logits = network(image)
    for hook in hooks:
        hook.remove()
    last = {name: torch.float32 for name, output in made.items() if output is logits}
    return dict.fromkeys(taken, torch.bfloat16) | last
