"""Train one network on the annotated images, part of them held back for validation."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch

import models
from models.interface import SegmentationModel
from pipeline.appearance import appearance, windows
from pipeline.auto_settings import settle
from pipeline.config import ImageConfig
from pipeline.device import prepare
from pipeline.errors import SlideError, SlidemillError
from pipeline.files import provenance, replacing, sha256
from pipeline.formats.image import PixelSize
from pipeline.intensity import measure, normalize, row_bands
from pipeline.labels import read_training_labels
from pipeline.patches import Annotated
from pipeline.pretrained import start_from
from pipeline.project import TrainingPair, find_pairs
from pipeline.slides import open_slide
from pipeline.splits import group_pairs, split_pairs
from pipeline.stage_config import TrainConfig
from pipeline.training import Record, train_network
from pipeline.training_set import describe_training_set
from pipeline.weights_file import save_network

log = logging.getLogger(__name__)


def run(
    *,
    images: Path,
    labels: Path,
    weights: Path,
    output: Path,
    history: Path,
    threads: int,
    memory_mb: int,
    config: TrainConfig,
) -> None:
    """Train on the folders ``images``, ``labels`` and ``weights``.

    Writes ``output`` (model.safetensors), ``model.json`` beside it, and ``history`` (CSV), which grows as it goes.
    """
    prepare(threads)
    torch.manual_seed(config.model.seed)
    groups = group_pairs(find_pairs(images, labels), Path(config.split.samples))
    pairs, held_back = split_pairs(groups, config.split)
    log.info("training on %s", ", ".join(pair.name for pair in pairs))
    log.info("held back for validation: %s", ", ".join(pair.name for pair in held_back))
    data = describe_training_set([*pairs, *held_back], config.labels, config.image, memory_mb=memory_mb)
    model = settle(config.model, data, memory_mb=memory_mb, **_shape(config))
    config = config.model_copy(update={"model": model})
    network = _build(config)
    if config.model.pretrained:
        start_from(network, config.model.pretrained)
    training, validation = ([_load(pair, weights, memory_mb, config) for pair in part] for part in (pairs, held_back))
    best = train_network(
        network,
        training=training,
        validation=validation,
        classes=config.labels.classes,
        config=model,
        on_record=lambda records: _write_history(history, records),
    )
    log.info("best after %d steps: mean Dice %.4f on the held-back images", best["step"], best["dice_mean"])

    pairs = [*pairs, *held_back]
    origin = provenance(
        "train", config, **{str(path): sha256(path) for pair in pairs for path in (pair.image, pair.labels)}
    )
    save_network(
        output,
        network,
        classes=config.labels.classes,
        pixel_size_um=_common_pixel_size(pairs, memory_mb, config.image),
        metrics=best,
        validation=[pair.name for pair in held_back],
        appearance=[annotated.appearance for annotated in (*training, *validation)],
        origin=origin,
    )


def _build(config: TrainConfig) -> SegmentationModel:
    try:
        return models.build(config.model.architecture, options=config.model.options, **_shape(config))
    except ValueError as error:
        raise SlidemillError(str(error)) from error


def _shape(config: TrainConfig) -> dict[str, int]:
    return {"in_channels": len(config.image.channels), "num_classes": len(config.labels.classes)}


def _load(pair: TrainingPair, weights: Path, memory_mb: int, config: TrainConfig) -> Annotated:
    """Read one pair into memory, normalized as slides are."""
    with open_slide(pair.image, memory_mb=memory_mb, view=config.image) as slide:
        pixels = slide.read_all()
        classes, _ = read_training_labels(pair.labels, config.labels, like=slide, memory_mb=memory_mb)
    try:
        statistics = measure(row_bands(lambda rows, columns: pixels[:, rows, columns], classes.shape), pixels.dtype)
    except ValueError as error:
        raise SlideError(f"{pair.image}: {error}") from error
    return Annotated(
        name=pair.name,
        image=normalize(pixels, statistics),
        classes=classes,
        weights=np.asarray(tifffile.imread(weights / f"{pair.name}.tif"), dtype=np.float16),
        appearance=appearance([pixels[:, rows, columns] for rows, columns in windows(classes.shape)]),
    )


def _common_pixel_size(pairs: list[TrainingPair], memory_mb: int, view: ImageConfig) -> PixelSize | None:
    """Return the median pixel size of the training images, µm; None where no file states one."""
    sizes = []
    for pair in pairs:
        with open_slide(pair.image, memory_mb=memory_mb, view=view) as slide:
            if slide.pixel_size_um:
                sizes.append(slide.pixel_size_um)
    if not sizes:
        return None
    rows_um, columns_um = np.median(sizes, axis=0)
    return float(rows_um), float(columns_um)


def _write_history(path: Path, records: list[Record]) -> None:
    with replacing(path) as temporary:
        pd.DataFrame(records).to_csv(temporary, index=False)
