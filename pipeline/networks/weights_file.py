"""Writing and reading of networks (safetensors and card); a module of its own, since reading a card needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

import models
from models.base.interface import SegmentationModel
from models.model_sheet import model_sheet
from pipeline import __version__
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, sha256, write_json
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.slides.intensity import NORMALIZATION


def save_network(
    path: Path,
    network: SegmentationModel,
    *,
    classes: Sequence[str],
    pixel_size_um: tuple[float, float] | None,
    metrics: Mapping[str, Any],
    validation: Sequence[str],
    appearance: Sequence[dict[str, float]],
    origin: dict[str, Any],
) -> None:
    """Write the weights to ``path`` and their card beside it, each atomically.

    Parameters
    ----------
    path : Path
        ``model.safetensors``.
    network : SegmentationModel
        Made by :func:`models.build` for ``classes``.
    origin : dict
        Result of :func:`pipeline.base.files.provenance`; the sha256 of the weights is added.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={"slidemill": __version__})
    origin["sha256"][path.name] = sha256(path)
    options = dict(network.chosen_options)
    sheet = model_sheet(network.name, in_channels=network.in_channels, num_classes=len(classes), options=options)
    card = ModelCard(
        architecture=network.name,
        options=options,
        classes=list(classes),
        in_channels=network.in_channels,
        geometry=sheet.geometry,
        pixel_size_um=pixel_size_um,
        normalization=dict(NORMALIZATION),
        metrics=dict(metrics),
        validation=list(validation),
        appearance=list(appearance),
        parameters=sheet.parameters,
        bytes_per_px=sheet.bytes_per_px,
        gflops_per_mpx=sheet.gflops_per_mpx,
        paper=sheet.paper,
    )
    write_json(card_path(path), card.to_dict() | {"provenance": origin})


def load_network(path: Path, *, classes: list[str] | None = None) -> tuple[SegmentationModel, ModelCard]:
    """Return the network in evaluation mode, and its card, ``model.json`` beside ``path``.

    Raises
    ------
    SlidemillError
        If a file is missing or damaged, or the weights do not fit the card.
        Also if the network has other ``classes`` than these.
    """
    card = read_card(card_path(path))
    if classes is not None and card.classes != classes:
        raise SlidemillError(f"{path}: its classes are {card.classes}, the configuration has {classes}")
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
