"""Networks in bfloat16, except for the first and last convolutions: image and logits are not rounded.

bfloat16 has 8 bits of mantissa: normalized and rounded, neighbouring grey values of an 8-bit slide become equal, and
rounded logits have ties.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.base.folding import noise_for, run_watched
from models.base.interface import SegmentationModel


class Float32Layer(nn.Module):
    """A layer in float32 in a network in bfloat16; ``made`` is the type of its output."""

    def __init__(self, layer: nn.Module, made: torch.dtype) -> None:
        super().__init__()
        self.layer, self.made = layer, made

    def forward(self, image: Tensor) -> Tensor:
        """Return the output of the layer for an image of any type."""
        made: Tensor = self.layer(image.float())
        return made.to(self.made)


def convert_to_bfloat16(network: SegmentationModel) -> None:
    """Convert a network to bfloat16, in place, except for convolutions that take the image or make the logits.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, in float32, on the CPU. In an ensemble, this holds for each member. If that fails, since
        the network uses the image elsewhere too, all layers are converted.
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
    """Return whether a network is not an ensemble of others."""
    return sum(isinstance(module, SegmentationModel) for module in network.modules()) == 1


@torch.no_grad()
def _ends(network: SegmentationModel) -> dict[str, torch.dtype]:
    """Return the first and last convolutions by name, with the type of their output."""
    image = noise_for(network)
    taken: set[str] = set()
    made: dict[str, Tensor] = {}

    def watch(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0] is image:
            taken.add(name)
        made[name] = output

    logits = run_watched(network, image, (nn.Conv2d,), watch)
    last = {name: torch.float32 for name, output in made.items() if output is logits}
    return dict.fromkeys(taken, torch.bfloat16) | last
