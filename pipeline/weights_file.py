"""Weights to and from safetensors. Apart from the card, because reading a card does not need torch."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

import models
from models.interface import SegmentationModel
from pipeline.checkpoint import ModelCard, card_path, read_card
from pipeline.errors import SlidemillError
from pipeline.files import replacing


def save_weights(path: Path, network: torch.nn.Module, metadata: dict[str, str]) -> None:
    """Write the state of a network, all or nothing."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata=metadata)


def load_network(path: Path) -> tuple[SegmentationModel, ModelCard]:
    """Build the network that ``model.json`` beside ``path`` describes, with the weights of ``path``, for evaluation.

    Raises
    ------
    SlidemillError
        If a file is missing or damaged, or the weights do not fit the description.
    """
    card = read_card(card_path(path))
    try:
        network = models.build(
            card.architecture, in_channels=card.in_channels, num_classes=len(card.classes), options=card.options
        )
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise SlidemillError(f"{path}: weights cannot be loaded: {error}") from error
    except RuntimeError as error:
        first = str(error).split("\n")[1:2] or [str(error)]
        raise SlidemillError(f"{path}: weights are not those of {card_path(path)}: {first[0].strip()}") from error
    return network.eval(), card
