"""Initial weights of a training: random, those of a classifier, or those of another network of Slidemill."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

import models
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import ModelConfig

log = logging.getLogger(__name__)


def build_network(config: ModelConfig, *, in_channels: int, num_classes: int) -> SegmentationModel:
    """Return the configured network with its initial weights, from ``seed`` or ``pretrained``.

    Raises
    ------
    SlidemillError
        If an option is unknown to the architecture, or the pretrained weights do not fit.
    """
    torch.manual_seed(config.seed)
    try:
        network = models.build(
            config.architecture, in_channels=in_channels, num_classes=num_classes, options=config.options
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
        ``model.safetensors``, of which all weights with the same name and shape are loaded: the head stays random if
        the number of classes differs, and so do layers that only this architecture has.

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
            _copy_fitting(network, safetensors.torch.load_file(source), source)
    except (OSError, SafetensorError, pickle.UnpicklingError, EOFError, ValueError, RuntimeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SlidemillError(f"pretrained {source!r}: {lines[0]}") from error
    log.info("started from %s", source)


def _copy_fitting(network: SegmentationModel, state: Mapping[str, Tensor], source: str) -> None:
    own = network.state_dict(keep_vars=True)
    fitting = [name for name, value in own.items() if name in state and state[name].shape == value.shape]
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(state[name])
    encoder = {id(parameter) for parameter in network.encoder.parameters()}
    if not any(id(own[name]) in encoder for name in fitting):
        raise ValueError("no weight fits the encoder of this network; is it another architecture or width?")
    learned = {name for name, _ in network.named_parameters()}
    if fresh := sorted(learned.difference(fitting)):
        log.info(
            "%s: %d of %d weights fit; random: %s", source, len(learned) - len(fresh), len(learned), ", ".join(fresh)
        )
