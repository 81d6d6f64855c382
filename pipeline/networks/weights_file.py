"""Writing and reading of networks (safetensors and card); a module of its own, since reading a card needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import models
from models.base.cost import bytes_per_px
from models.base.interface import SegmentationModel
from pipeline import __version__
from pipeline.base.errors import SlidemillError
from pipeline.base.files import identity_of, replacing, sha256, write_json
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.networks.model_sheet import model_sheet
from pipeline.slides.intensity import NORMALIZATION

_VARIANCE = "running_var"
# In the weights file, the description that was measured on its network. The only key: their order is random.
_MEASURED = "slidemill"


def save_network(
    path: Path,
    network: SegmentationModel,
    *,
    classes: Sequence[str],
    pixel_size_um: tuple[float, float] | None,
    metrics: Mapping[str, Any],
    validation: Sequence[str],
    described: Mapping[str, Any],
    origin: dict[str, Any],
) -> None:
    """Write the weights to ``path`` and their card beside it: both, or neither if something fails.

    Parameters
    ----------
    path : Path
        ``model.safetensors``.
    network : SegmentationModel
        Made by :func:`models.build` for ``classes``, and its heads.
    described : mapping
        What is known of the training images: ``appearance``, ``objects`` and ``label_shift_px`` of the card.
    origin : dict
        Result of :func:`pipeline.base.files.provenance`; the sha256 of the weights is added.
    """
    options = dict(network.chosen_options)
    sheet = model_sheet(
        network.name,
        in_channels=network.in_channels,
        num_classes=len(classes),
        heads=network.heads,
        options=options,
    )
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
        parameters=sheet.parameters,
        bytes_per_px=sheet.bytes_per_px,
        gflops_per_mpx=sheet.gflops_per_mpx,
        paper=sheet.paper,
        heads=list(network.heads),
        **described,
    )
    state = {name: _positive(name, tensor).detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata={_MEASURED: _measured(card)})
        origin["sha256"][path.name] = sha256(temporary)
        write_json(card_path(path), card.to_dict() | {"provenance": origin})


def _positive(name: str, values: Tensor) -> Tensor:
    """Give a channel that never varies the smallest variance, so that one of 0 in a file means damage."""
    return values.clamp_min(torch.finfo(values.dtype).tiny) if name.endswith(_VARIANCE) else values


def _measured(card: ModelCard) -> str:
    """Return the version that measures a network, and the hash of what it finds."""
    description = [card.architecture, card.options, len(card.classes), card.heads, card.in_channels]
    found = identity_of([torch.__version__, description, asdict(card.geometry), card.bytes_per_px])
    return f"{__version__} {found}"


def load_network(path: Path, *, classes: list[str] | None = None) -> tuple[SegmentationModel, ModelCard]:
    """Return the network in evaluation mode, and its card, ``model.json`` beside ``path``.

    Raises
    ------
    SlidemillError
        If a file is missing or damaged, the card does not describe the network that it names, or the weights do not
        fit it or cannot be meant: numbers of another kind, not finite, or a variance that is not positive.
        Also if the network has other ``classes`` than these.
    """
    card = read_card(card_path(path))
    if classes is not None and card.classes != classes:
        raise SlidemillError(
            f"{path}: its classes are {card.classes}, the configuration has {classes}; list the same in the same order"
        )
    build = partial(
        models.build,
        card.architecture,
        in_channels=card.in_channels,
        num_classes=len(card.classes),
        heads=card.heads,
        options=card.options,
    )
    try:
        with torch.device("meta"):  # without memory: nobody has checked the size of the network yet
            planned = build()
        is_measured = _metadata(path).get(_MEASURED) == _measured(card)
        if not is_measured:  # made by another version, or edited: measuring takes seconds
            _check_card(card, planned)
    except Exception as error:  # options go to the architecture as they are
        raise SlidemillError(
            f"{card_path(path)}: {error or type(error).__name__}; use that of these weights"
        ) from error
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise SlidemillError(f"{path}: weights cannot be loaded: {error}; copy the file again") from error
    if reason := _mistake_in(state, planned.state_dict()):
        raise SlidemillError(f"{path}: weights are not those of {card_path(path)}: {reason}; copy both files again")
    network = build()
    network.load_state_dict(state)
    network.geometry = card.geometry
    return network.eval(), card


def _metadata(path: Path) -> dict[str, str]:
    """Return what a weights file says about itself; nothing if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _check_card(card: ModelCard, network: SegmentationModel) -> None:
    """Refuse a card that does not describe its network: windows are planned from the card alone."""
    stated, built = asdict(card.geometry), asdict(network.geometry)
    for name in built:
        if stated[name] != built[name]:
            raise ValueError(f"{name} is {stated[name]}, the network that it describes has {built[name]}")
    needed = bytes_per_px(network, in_channels=card.in_channels, sampling=network.geometry)
    if card.bytes_per_px < needed / 2:  # versions of torch differ
        raise ValueError(f"bytes_per_px is {card.bytes_per_px}, the network that it describes takes {needed}")


def _mistake_in(state: Mapping[str, Tensor], planned: Mapping[str, Tensor]) -> str:
    """Return what is wrong with the weights of a file for a network; empty if they fit."""
    if other := sorted(state.keys() ^ planned.keys()):
        return f"{other[0]} is {'missing' if other[0] in planned else 'in no layer'}"
    for name, values in state.items():
        if values.shape != planned[name].shape:
            return f"{name} has shape {tuple(values.shape)}, the network {tuple(planned[name].shape)}"
        if mistake := mistake_in_values(name, values, planned[name].is_floating_point()):
            return mistake
    return ""


def mistake_in_values(name: str, values: Tensor, is_floating_point: bool) -> str:
    """Return what is wrong with the numbers of a layer; empty if nothing is."""
    if values.is_floating_point() != is_floating_point:
        return f"{name} holds numbers of type {str(values.dtype).removeprefix('torch.')}"
    if is_floating_point and not values.isfinite().all():
        return f"{name} has values that are not finite"
    if name.endswith(_VARIANCE) and not (values > 0).all():
        return f"{name} has a variance that is not positive"
    return ""
