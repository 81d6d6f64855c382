"""Compute the boundary weight maps of all training labels; class balance is that of the whole set."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.files import provenance, replacing, sha256
from pipeline.labels import class_map, open_labels, read_training_labels
from pipeline.project import TrainingPair, find_pairs
from pipeline.slides import open_slide
from pipeline.stage_config import WeighConfig
from pipeline.weights import class_weights, weight_map

log = logging.getLogger(__name__)


def run(*, images: Path, labels: Path, output: Path, memory_mb: int, config: WeighConfig) -> None:
    """Write ``output/NAME.tif`` (float16) for every training pair of the folders ``images`` and ``labels``."""
    pairs = find_pairs(images, labels)
    balance = _class_balance(pairs, config, memory_mb)
    log.info("%d label images, class weights %s", len(pairs), balance)
    for pair in pairs:
        with open_slide(pair.image, memory_mb=memory_mb, view=config.image) as image:
            classes, objects = read_training_labels(pair.labels, config.labels, like=image, memory_mb=memory_mb)
        weights = weight_map(
            classes,
            objects,
            class_weight=balance,
            boundary_weight=config.loss.boundary_weight,
            sigma_px=config.loss.boundary_sigma_px,
        )
        origin = provenance("weigh", config, labels=sha256(pair.labels))
        with replacing(output / f"{pair.name}.tif") as temporary:
            tifffile.imwrite(temporary, _to_float16(weights), compression="zlib", metadata=origin)


def _to_float16(weights: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to float16; the weight of a very rare class is cut at its largest value instead of becoming infinite."""
    return np.minimum(weights, np.finfo(np.float16).max).astype(np.float16)


def _class_balance(pairs: list[TrainingPair], config: WeighConfig, memory_mb: int) -> NDArray[np.float64]:
    num_classes = len(config.labels.classes)
    if not config.loss.class_balance:
        return np.ones(num_classes)
    counts = np.zeros(num_classes, dtype=np.int64)
    for pair in pairs:
        with (
            open_slide(pair.image, memory_mb=memory_mb, view=config.image) as image,
            open_labels(pair.labels, config.labels, memory_mb=memory_mb, like=image) as labels,
        ):
            classes = class_map(labels.read_all()[0], config.labels, source=pair.labels)
        counts += np.bincount(classes.ravel(), minlength=num_classes)[:num_classes]
    return class_weights(counts)
