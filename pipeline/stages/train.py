"""Train one network on the annotated images; part of them is held back for validation."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pipeline.base.files import identity_of, provenance, sha256
from pipeline.networks.weights_file import save_network
from pipeline.project.splits import group_pairs, split_pairs
from pipeline.project.training_pairs import TrainingPair, find_pairs
from pipeline.runtime.device import choose_devices, set_up_process
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TrainConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.slide import open_slide
from pipeline.training.loop import Task, shrink_state, train_network
from pipeline.training.prepare import prepare_training

log = logging.getLogger(__name__)


def run(
    *,
    images: Path,
    labels: Path,
    weight_maps: Path,
    output: Path,
    history: Path,
    threads: int,
    devices: int,
    memory_mb: int,
    config: TrainConfig,
) -> None:
    """Train one network; the same command continues an interrupted training.

    Parameters
    ----------
    images : Path
        Folder of the training images.
    labels : Path
        Folder of the labels, with the names of the images.
    weight_maps : Path
        Folder of the weight maps, with the names of the images.
    output : Path
        Network file to write (model.safetensors), with model.json and the folder ``training`` beside it.
    history : Path
        CSV to write: a row for each validation.
    threads : int
        CPU threads that the job may use.
    devices : int
        Number of GPUs, 0 = all GPUs; without a GPU, number of processes.
    memory_mb : int
        Memory that the training may use, in MB; patch and batch sizes that are auto follow from it.
    config : TrainConfig
        Model, training, labels and how images are read.
    """
    set_up_process(threads)
    groups = group_pairs(find_pairs(images, labels), Path(config.split.samples))
    pairs, held_back = split_pairs(groups, config.split)
    log.info("training on %s", ", ".join(pair.name for pair in pairs))
    log.info("held back for validation: %s", ", ".join(pair.name for pair in held_back))
    everything = [*pairs, *held_back]
    prepared = prepare_training(everything, weight_maps, config, memory_mb=memory_mb)
    start = Path(prepared.config.pretrained or "")
    files = [path for pair in everything for path in (pair.image, pair.labels)] + [start] * start.is_file()
    resolved = config.model_copy(update={"model": prepared.config})
    origin = provenance("train", resolved, **{str(path): sha256(path) for path in files})
    task = Task(
        network=prepared.network,
        training=prepared.images[: len(pairs)],
        validation=prepared.images[len(pairs) :],
        classes=config.labels.classes,
        config=prepared.config,
        identity=identity_of(origin),
        history=history,
        folder=output.parent / "training",
    )
    best = train_network(task, choose_devices(devices))
    log.info("best after %d steps: mean Dice %.4f on the held-back images", best["step"], best["dice_mean"])
    save_network(
        output,
        task.network,
        classes=config.labels.classes,
        pixel_size_um=_common_pixel_size(everything, memory_mb, config.image),
        metrics=best,
        validation=[pair.name for pair in held_back],
        appearance=[annotated.appearance for annotated in prepared.images],
        origin=origin,
    )
    shrink_state(task)


def _common_pixel_size(pairs: list[TrainingPair], memory_mb: int, view: ImageConfig) -> PixelSize | None:
    """Return the median pixel size of the training images, µm; None if no file states one."""
    sizes = []
    for pair in pairs:
        with open_slide(pair.image, memory_mb=memory_mb, view=view) as slide:
            if slide.pixel_size_um:
                sizes.append(slide.pixel_size_um)
    if not sizes:
        return None
    rows_um, columns_um = np.median(sizes, axis=0)
    return float(rows_um), float(columns_um)
