"""Combine trained networks into one that averages their predictions."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

import models
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, sha256
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network, save_network
from pipeline.settings.networks import EnsembleConfig

log = logging.getLogger(__name__)


def run(*, networks: list[Path], output: Path, config: EnsembleConfig) -> None:
    """Write the ensemble of ``networks``.

    Parameters
    ----------
    networks : list of Path
        Network files (model.safetensors, each with model.json beside it) of the same channels and classes.
    output : Path
        Network file of the ensemble to write, and model.json beside it.
    config : EnsembleConfig
        Scales and symmetries that each member predicts at.
    """
    members = [load_network(path) for path in networks]
    first = members[0][1]
    for path, (_, card) in zip(networks, members, strict=True):
        if (card.classes, card.in_channels) != (first.classes, first.in_channels):
            raise SlidemillError(
                f"{path}: {card.in_channels} channels and classes {card.classes}, but {networks[0]} has "
                f"{first.in_channels} and {first.classes}; an ensemble needs the same"
            )
    options = {
        "members": [{"architecture": card.architecture, "options": card.options} for _, card in members],
        "scales": list(config.scales),
        "symmetries": config.symmetries,
    }
    ensemble = models.build("ensemble", in_channels=first.in_channels, num_classes=len(first.classes), options=options)
    ensemble.load_state_dict(
        {
            f"members.{index}.{name}": value
            for index, (network, _) in enumerate(members)
            for name, value in network.state_dict().items()
        }
    )
    metrics, validation = cross_validation([card for _, card in members])
    save_network(
        output,
        ensemble,
        classes=first.classes,
        pixel_size_um=first.pixel_size_um,
        metrics=metrics,
        validation=validation,
        appearance=first.appearance,
        origin=provenance("combine", config, **{str(path): sha256(path) for path in networks}),
    )
    log.info("%d networks, %d views of every window", len(members), len(members) * len(config.scales))


def cross_validation(cards: list[ModelCard]) -> tuple[dict[str, float], list[str]]:
    """Return mean and standard deviation of the Dice of networks that were validated on different images, and those.

    Nothing of networks that share an image, or have none: theirs would be no Dice of the ensemble.
    """
    images = [name for card in cards for name in card.validation]
    if len(cards) < 2 or not all(card.validation for card in cards) or len(set(images)) < len(images):
        return {}, []
    shared = [name for name in cards[0].metrics if name.startswith("dice_") and all(name in c.metrics for c in cards)]
    metrics = {}
    for name in shared:
        values = [np.nan if card.metrics[name] is None else card.metrics[name] for card in cards]
        known = [value for value in values if np.isfinite(value)]
        metrics[name] = float(np.mean(known)) if known else np.nan
        metrics[f"sd_{name}"] = float(np.std(known, ddof=1)) if len(known) > 1 else np.nan
    return metrics, sorted(images)
