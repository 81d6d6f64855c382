"""Initial weights of a training: random, those of a classifier, or those of another network of Slidemill."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

import models
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.networks.model_card import card_path, read_card
from pipeline.networks.weights_file import mistake_in_values
from pipeline.settings.networks import ModelConfig

log = logging.getLogger(__name__)


def build_network(
    config: ModelConfig, *, in_channels: int, num_classes: int, heads: Sequence[str] = ()
) -> SegmentationModel:
    """Return the configured network with its initial weights, from ``seed`` or ``pretrained``.

    Raises
    ------
    SlidemillError
        If an option is unknown to the architecture, or the pretrained weights do not fit.
    """
    torch.manual_seed(config.seed)
    try:
        network = models.build(
            config.architecture,
            in_channels=in_channels,
            num_classes=num_classes,
            heads=heads,
            options=config.options,
        )
    except ValueError as error:
        raise SlidemillError(str(error)) from error
    if config.pretrained:
        load_pretrained(network, config.pretrained)
    return network


def load_pretrained(network: SegmentationModel, source: str) -> None:
    """Load trained weights into a network, as far as they fit.

    Parameters
    ----------
    source : str
        ``imagenet``; or the path of a torchvision state dict (.pth, .pt), whose backbone must fit completely; or of a
        ``model.safetensors``, of which all weights with the same name and shape are loaded: the last layer stays
        random if the number of classes differs, and so do layers that only this architecture has. If its ``model.json``
        names the same number of classes but other heads, the classes are loaded, and the heads that both have.

    Raises
    ------
    SlidemillError
        If the weights cannot be read or downloaded, or do not fit.
    """
    try:
        if source == "imagenet":
            network.load_imagenet()
        elif Path(source).suffix in {".pth", ".pt"}:
            network.load_backbone(torch.load(source, map_location="cpu", weights_only=True))
        else:
            card = card_path(Path(source))
            heads = read_card(card).heads if card.is_file() else []
            _copy_fitting(network, safetensors.torch.load_file(source), source, heads)
    except (OSError, SafetensorError, pickle.UnpicklingError, EOFError, ValueError, RuntimeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SlidemillError(f"pretrained {source!r}: {lines[0]}") from error
    log.info("started from %s", source)


def _copy_fitting(network: SegmentationModel, state: Mapping[str, Tensor], source: str, heads: Sequence[str]) -> None:
    """Copy the weights of a network with other ``heads`` as far as they fit."""
    own = network.state_dict(keep_vars=True)
    found = {name: _fitting(state[name], value, network, heads) for name, value in own.items() if name in state}
    fitting = {name: values for name, values in found.items() if values is not None}
    with torch.no_grad():
        for name, values in fitting.items():
            if mistake := mistake_in_values(name, state[name], own[name].is_floating_point()):
                raise ValueError(mistake)
            own[name].copy_(values)
    encoder = {id(parameter) for parameter in network.encoder.parameters()}
    if not any(id(own[name]) in encoder for name in fitting):
        raise ValueError("no weight fits the encoder of this network; is it another architecture or width?")
    learned = {name for name, _ in network.named_parameters()}
    if fresh := sorted(learned.difference(fitting)):
        log.info(
            "%s: %d of %d weights fit; random: %s", source, len(learned) - len(fresh), len(learned), ", ".join(fresh)
        )


def _fitting(given: Tensor, own: Tensor, network: SegmentationModel, heads: Sequence[str]) -> Tensor | None:
    """Return new values for ``own`` weights; None if the given ones, of a network with these heads, do not fit.

    In the last layer, channels of classes and shared heads are replaced.
    """
    if given.shape == own.shape:
        return given
    classes, outputs = network.num_classes, network.num_classes + len(network.heads)
    if given.ndim != own.ndim:
        return None
    differing = [axis for axis in range(own.ndim) if given.shape[axis] != own.shape[axis]]
    if [(own.shape[axis], given.shape[axis]) for axis in differing] != [(outputs, classes + len(heads))]:
        return None
    shared = [head for head in network.heads if head in heads]
    here, there = (
        torch.tensor([*range(classes), *(classes + names.index(head) for head in shared)])
        for names in (network.heads, heads)
    )
    (axis,) = differing
    return own.detach().index_copy(axis, here, given.index_select(axis, there).to(own.dtype))
