"""Combine trained networks into one that averages their predictions."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

import models
from models.ensemble import Ensemble, shared_heads
from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, sha256
from pipeline.metrics.names import HEADLINE
from pipeline.networks.model_card import ModelCard, card_path, member_of, write_comparisons
from pipeline.networks.weights_file import load_network, save_network
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.fingerprints import Inputs
from pipeline.project.jobs.ledger import makers_of
from pipeline.project.jobs.network_job import inputs_of_combine, make_network
from pipeline.project.splits import find_split
from pipeline.project.training_pairs import TrainingPair
from pipeline.runtime.device import set_up_process
from pipeline.settings.stage_sections import CombineConfig
from pipeline.training.comparison.partings import mean_partings
from pipeline.training.comparison.refinements import mean_refinements
from pipeline.training.comparison.tables import compare_on_held_back

log = logging.getLogger(__name__)


def run(
    *,
    model: str,
    networks: list[Path],
    images: Path,
    labels: Path,
    threads: int,
    memory_mb: int,
    config: CombineConfig,
) -> None:
    """Write the ensemble of ``networks``; compare what can follow it on the images that all of them hold back.

    Parameters
    ----------
    model : str
        Name of the ensemble, or of the model in folds.
    networks : list of Path
        Network files (model.safetensors, each with model.json beside it) of the same channels and classes.
    images : Path
        Folder of the training images.
    labels : Path
        Folder of the labels, with the names of the images.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Memory that reading and prediction may use, in MB.
    config : CombineConfig
        Scales and symmetries that each member predicts at, and what the members hold back.
    """
    set_up_process(threads)
    output = Path(paths.NETWORK.format(model=model))

    def held_back() -> list[TrainingPair]:
        return find_split(images, labels, config.comparison.split)[1] if config.comparison else []

    def made_from() -> Inputs:
        return inputs_of_combine(networks, held_back())

    def make() -> Made:
        cards, warnings = _combine(networks, output, config), []
        if config.comparison:  # of few images: a GPU is left to other jobs
            processor = torch.device("cpu")
            warnings = compare_on_held_back(
                output, held_back(), config.comparison, device=processor, memory_mb=memory_mb
            )
        if warnings or not config.comparison:
            _average_tables(card_path(output), cards)
        return Made(files=[output, card_path(output)], found={"warnings": warnings})

    after = [maker for network in networks for maker in makers_of(network)]
    make_network("combine", model, config, make, made_from=made_from, after=after)


def _combine(networks: list[Path], output: Path, config: CombineConfig) -> list[ModelCard]:
    """Write the ensemble with its card; return the cards of its members."""
    members = [load_network(path) for path in networks]
    first = members[0][1]
    for path, (_, card) in zip(networks, members, strict=True):
        if (card.classes, card.in_channels) != (first.classes, first.in_channels):
            raise SlidemillError(
                f"{path}: {card.in_channels} channels and classes {card.classes}, but {networks[0]} has "
                f"{first.in_channels} and {first.classes}; an ensemble needs the same"
            )
    parts = [member_of(card) for _, card in members]
    options = {"members": parts, "scales": list(config.ensemble.scales), "symmetries": config.ensemble.symmetries}
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
    cards = [card for _, card in members]
    metrics, validation = cross_validation(cards)
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
    log.info("%d networks, %d views of every window", len(members), len(ensemble.views))
    return cards


def _average_tables(card: Path, members: list[ModelCard]) -> None:
    """Write the means of the tables of the members: the ensemble itself was not compared."""
    partings = mean_partings([member.parting or [] for member in members])
    fields = mean_refinements([member.crf or [] for member in members])
    write_comparisons(card, output=card, parting=partings, crf=fields)


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
