"""All that a training begins with: opened images, a configuration without ``auto``, and the initial network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import models
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.networks.pretrained import build_network
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.networks import ResolvedConfig
from pipeline.settings.stage_sections import TrainConfig
from pipeline.training.auto_settings import resolve
from pipeline.training.data.annotated_slides import Annotated, open_pairs
from pipeline.training.data.object_ids import describe_sides
from pipeline.training.data.training_set import TrainingSet, describe_training_set

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedTraining:
    """Initial network, resolved configuration, and the images in the order of their pairs."""

    network: SegmentationModel
    config: ResolvedConfig
    images: list[Annotated]
    objects: Mapping[str, float]


def prepare_training(
    pairs: Sequence[TrainingPair], weight_maps: Path, config: TrainConfig, *, memory_mb: int
) -> PreparedTraining:
    """Open annotated images, resolve the ``auto`` settings from them, and build the network.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        All annotated images, those held back for validation included.
    weight_maps : Path
        Folder of their weight maps, with the targets of heads.
    memory_mb : int
        Memory that the training may take.

    Raises
    ------
    SlidemillError
        If an image, its labels, an option or the pretrained weights cannot be used.
    """
    channels, classes = len(config.image.channels), len(config.labels.classes)
    heads = config.model.heads.names
    data = describe_training_set(pairs, config.labels, config.image, memory_mb=memory_mb)
    images = open_pairs(pairs, weight_maps, memory_mb=memory_mb, config=config)
    if models.detects_objects(config.model.architecture):
        data = _with_sides(data, images, config)
    resolved = resolve(config.model, data, in_channels=channels, num_classes=classes, heads=heads, memory_mb=memory_mb)
    network = build_network(resolved, in_channels=channels, num_classes=classes, heads=heads)
    return PreparedTraining(network=network, config=resolved, images=images, objects=data.objects)


def _with_sides(data: TrainingSet, images: Sequence[Annotated], config: TrainConfig) -> TrainingSet:
    """Return the measurements with the sides of objects, small ones and the largest, of all images.

    Raises
    ------
    SlidemillError
        If there is no object.
    """
    if config.labels.kind == "classes":
        log.info("training.kind is classes: the objects to learn are the connected parts of each class but the first")
    sides = describe_sides(image.object_sizes for image in images)
    if sides is None:
        raise SlidemillError(
            f"{config.model.architecture} learns from objects, and no training image has one; annotate some"
        )
    return replace(data, objects={**data.objects, **sides})
