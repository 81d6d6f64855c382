"""Compute the maps of all training images: weights (class balance, boundaries), targets of heads, object ids."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base import paths
from pipeline.base.files import provenance, replacing, sha256
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.network_job import inputs_of_weigh, make_network
from pipeline.project.training_pairs import TrainingPair, find_pairs
from pipeline.settings.stage_sections import WeighConfig
from pipeline.slides.labels import open_labels
from pipeline.slides.slide import Slide, open_slide
from pipeline.training.data.head_targets import head_targets
from pipeline.training.data.object_ids import number_objects
from pipeline.training.data.weight_map import class_weights, weight_bands
from pipeline.training.data.weight_map_files import count_classes, label_reader, objects_of, write_maps

log = logging.getLogger(__name__)


def run(*, model: str, images: Path, labels: Path, memory_mb: int, config: WeighConfig) -> None:
    """Write one TIFF for every training image: its weight map, a channel for each head, and perhaps one of objects.

    Parameters
    ----------
    model : str
        Name of the model in the configuration.
    images : Path
        Folder of the training images.
    labels : Path
        Folder of the labels, with the names of the images.
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : WeighConfig
        Loss, heads, labels and how images are read.
    """
    make = partial(_weigh, images, labels, Path(paths.WEIGHT_MAPS.format(model=model)), memory_mb, config)
    make_network("weigh", model, config, make, made_from=lambda: inputs_of_weigh(find_pairs(images, labels)))


def _weigh(images: Path, labels: Path, output: Path, memory_mb: int, config: WeighConfig) -> Made:
    pairs = find_pairs(images, labels)
    balance = _class_balance(pairs, config, memory_mb)
    log.info("%d label images, class weights %s", len(pairs), balance)
    for pair in pairs:
        origin = provenance("weigh", config, labels=sha256(pair.labels))
        with (
            _labels_of(pair, config, memory_mb) as annotated,
            replacing(output / f"{pair.name}.tif") as temporary,
            tempfile.TemporaryDirectory(dir=temporary.parent) as scratch,
        ):
            objects = objects_of(annotated, config.labels, scratch=Path(scratch))
            bands = weight_bands(
                label_reader(annotated, config.labels, objects),
                annotated.shape,
                class_weight=balance,
                boundary_weight=config.loss.boundary_weight,
                sigma_px=config.loss.boundary_sigma_px,
            )
            targets = head_targets(objects, config.heads.names, scratch=Path(scratch))
            targets += [number_objects(objects, source=pair.labels)] if config.objects else []
            write_maps(temporary, bands, targets, annotated.shape, origin)
    return Made(files=[output / f"{pair.name}.tif" for pair in pairs])


def _class_balance(pairs: list[TrainingPair], config: WeighConfig, memory_mb: int) -> NDArray[np.float64]:
    num_classes = len(config.labels.classes)
    if not config.loss.class_balance:
        return np.ones(num_classes)
    counts = np.zeros(num_classes, dtype=np.int64)
    for pair in pairs:
        with _labels_of(pair, config, memory_mb) as annotated:
            counts += count_classes(annotated, config.labels)
    return class_weights(counts)


@contextmanager
def _labels_of(pair: TrainingPair, config: WeighConfig, memory_mb: int) -> Iterator[Slide]:
    with (
        open_slide(pair.image, memory_mb=memory_mb, view=config.image) as image,
        open_labels(pair.labels, config.labels, memory_mb=memory_mb, like=image) as annotated,
    ):
        yield annotated
