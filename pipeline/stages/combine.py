"""Combine trained networks into one that averages their predictions."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np

import models
from models.ensemble import Ensemble, shared_heads
from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, sha256
from pipeline.metrics.names import HEADLINE
from pipeline.networks.model_card import ModelCard, card_path, member_of, write_comparisons
from pipeline.networks.weights_file import load_network, save_network
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.ledger import makers_of
from pipeline.project.jobs.network_job import inputs_of_networks, make_network
from pipeline.settings.networks import EnsembleConfig
from pipeline.training.partings import mean_partings
from pipeline.training.refinements import mean_refinements

log = logging.getLogger(__name__)


def run(*, model: str, networks: list[Path], config: EnsembleConfig) -> None:
    """Write the ensemble of ``networks``.

    Parameters
    ----------
    model : str
        Name of the ensemble, or of the model in folds.
    networks : list of Path
        Network files (model.safetensors, each with model.json beside it) of the same channels and classes.
    config : EnsembleConfig
        Scales and symmetries that each member predicts at.
    """
    make = partial(_combine, networks, Path(paths.NETWORK.format(model=model)), config)
    after = [maker for network in networks for maker in makers_of(network)]
    make_network("combine", model, config, make, made_from=partial(inputs_of_networks, networks), after=after)


def _combine(networks: list[Path], output: Path, config: EnsembleConfig) -> Made:
    members = [load_network(path) for path in networks]
    first = members[0][1]
    for path, (_, card) in zip(networks, members, strict=True):
        if (card.classes, card.in_channels) != (first.classes, first.in_channels):
            raise SlidemillError(
                f"{path}: {card.in_channels} channels and classes {card.classes}, but {networks[0]} has "
                f"{first.in_channels} and {first.classes}; an ensemble needs the same"
            )
    parts = [member_of(card) for _, card in members]
    options = {"members": parts, "scales": list(config.scales), "symmetries": config.symmetries}
    ensemble = models.build(
        "ensemble",
        in_channels=first.in_channels,
        num_classes=len(first.classes),
        heads=shared_heads(parts),
        options=options,
    )
    assert isinstance(ensemble, Ensemble)
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
        described={"appearance": first.appearance, "objects": first.objects},
        origin=provenance("combine", config, **{str(path): sha256(path) for path in networks}),
    )
    partings = mean_partings([card.parting or [] for _, card in members])
    fields = mean_refinements([card.crf or [] for _, card in members])
    write_comparisons(card_path(output), output=card_path(output), parting=partings, crf=fields)
    log.info("%d networks, %d views of every window", len(members), len(ensemble.views))
    return Made(files=[output, card_path(output)])


def cross_validation(cards: list[ModelCard]) -> tuple[dict[str, float], list[str]]:
    """Return mean and standard deviation of the Dice of networks that were validated on different images, and those.

    Nothing of networks that share an image, or have none: theirs would be no Dice of the ensemble.
    """
    images = [name for card in cards for name in card.validation]
    if len(cards) < 2 or not all(card.validation for card in cards) or len(set(images)) < len(images):
        return {}, []
    scores = [name for name in cards[0].metrics if name == HEADLINE or name.startswith("dice_")]
    shared = [name for name in scores if all(name in card.metrics for card in cards)]
    metrics = {}
    for name in shared:
        values = [np.nan if card.metrics[name] is None else card.metrics[name] for card in cards]
        known = [value for value in values if np.isfinite(value)]
        metrics[name] = float(np.mean(known)) if known else np.nan
        metrics[f"sd_{name}"] = float(np.std(known, ddof=1)) if len(known) > 1 else np.nan
    return metrics, sorted(images)
