"""Train one network on the annotated images; part of them is held back for validation."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.base import paths
from pipeline.base.files import identity_of, provenance, replacing, sha256
from pipeline.metrics.label_shift import Shift, common_shift, shift_doubt
from pipeline.metrics.names import HEADLINE
from pipeline.networks.model_card import card_path, read_card
from pipeline.networks.weights_file import save_network
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.fingerprints import NETWORK_ALGORITHMS, Inputs, recipe
from pipeline.project.jobs.ledger import makers_of
from pipeline.project.jobs.network_job import inputs_of_train, make_network
from pipeline.project.splits import find_split
from pipeline.project.training_pairs import TrainingPair
from pipeline.report.held_back import write_held_back
from pipeline.report.pictures import pictures_of_training
from pipeline.runtime.device import choose_devices, set_up_process
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TrainConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.slide import open_slide
from pipeline.training.auto_settings import batch_doubt
from pipeline.training.comparison.tables import compare_on_held_back
from pipeline.training.data.annotated_slides import check_classes
from pipeline.training.held_back import label_held_back
from pipeline.training.loop import Task, train_network
from pipeline.training.prepare import prepare_training

log = logging.getLogger(__name__)

_LIMITS = ("max_steps", "max_minutes", "patience")  # a training under higher ones goes on where it ended
_IDENTITY_LENGTH = 16


def run(
    *,
    model: str,
    images: Path,
    labels: Path,
    weight_maps: Path,
    threads: int,
    devices: int,
    memory_mb: int,
    config: TrainConfig,
) -> None:
    """Train one network. An interrupted training continues, and a finished one goes on if its limits are raised.

    Parameters
    ----------
    model : str
        Name of the model in the configuration, or of one of its folds (``unet/fold1``).
    images : Path
        Folder of the training images.
    labels : Path
        Folder of the labels, with the names of the images.
    weight_maps : Path
        Folder of the weight maps, with the names of the images.
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

    def made_from() -> Inputs:
        pairs, held_back = find_split(images, labels, config.split)
        return inputs_of_train([*pairs, *held_back], held_back, start=config.model.pretrained)

    def make() -> Made:
        parts = find_split(images, labels, config.split)
        return _train(model, parts, weight_maps, devices=devices, memory_mb=memory_mb, config=config)

    after = [("weigh", model.partition("/")[0]), *makers_of(Path(config.model.pretrained or ""))]
    make_network("train", model, config, make, made_from=made_from, after=after)


def _train(
    model: str,
    parts: tuple[list[TrainingPair], list[TrainingPair]],
    weight_maps: Path,
    *,
    devices: int,
    memory_mb: int,
    config: TrainConfig,
) -> Made:
    pairs, held_back = parts
    log.info("training on %s", ", ".join(pair.name for pair in pairs))
    log.info("held back for validation: %s", ", ".join(pair.name for pair in held_back))
    everything = [*pairs, *held_back]
    prepared = prepare_training(everything, weight_maps, config, memory_mb=memory_mb)
    training, held_back_images = prepared.images[: len(pairs)], prepared.images[len(pairs) :]
    doubts = check_classes(training, held_back_images, config.labels.classes)
    for doubt in doubts:
        log.warning("training image %s", doubt)
    doubts = [f"{image.name}: {warning}" for image in prepared.images for warning in image.warnings] + doubts
    if alone := batch_doubt(prepared.network, prepared.config.batch_size):
        log.warning(alone)
        doubts.append(alone)
    start = Path(prepared.config.pretrained or "")
    inputs = [path for pair in everything for path in (pair.image, pair.labels)] + [start] * start.is_file()
    resolved = config.model_copy(update={"model": prepared.config})
    origin = provenance("train", resolved, **{str(path): sha256(path) for path in inputs})
    kept = Path(paths.KEPT.format(model=model, identity=_identity(origin)[:_IDENTITY_LENGTH]))
    files = [Path(pattern.format(model=model)) for pattern in (paths.NETWORK, paths.CARD, paths.HISTORY)]
    if all((kept / path.name).is_file() for path in files):
        log.info("%s was made from the same images under the same settings; it is used again", kept)
    else:
        task = Task(
            network=prepared.network,
            training=training,
            validation=held_back_images,
            classes=config.labels.classes,
            config=prepared.config,
            identity=_identity(origin, but=_LIMITS),
            folder=Path(paths.TRAINING.format(model=model)),
        )
        pixel_size_um = _common_pixel_size(everything, memory_mb, config.image)
        chosen, objects = choose_devices(devices), prepared.objects
        _learn(task, kept, chosen, pixel_size_um=pixel_size_um, objects=objects, origin=origin)
    weights = kept / Path(paths.NETWORK).name
    if shifted := shift_doubt(read_card(card_path(weights)).label_shift_px):
        log.warning(shifted)
        doubts.append(shifted)
    device = choose_devices(devices)[0]
    doubts += compare_on_held_back(weights, held_back, config.comparison, device=device, memory_mb=memory_mb)
    for path in files:  # the network of other settings stays until this one is complete
        with replacing(path) as temporary:
            shutil.copyfile(kept / path.name, temporary)
    _replace_folder(Path(paths.HELD_BACK.format(model=model)), kept)
    return Made(files=files, found={"warnings": doubts})


def _learn(
    task: Task,
    kept: Path,
    devices: list[torch.device],
    *,
    pixel_size_um: PixelSize | None,
    objects: Mapping[str, float],
    origin: dict[str, Any],
) -> None:
    """Train, then write the network with its card and its history into the folder ``kept``, as a whole."""
    row = train_network(task, devices)
    log.info("kept after %d steps: foreground Dice %.4f on the held-back images", row["step"], row[HEADLINE])
    shutil.rmtree(kept, ignore_errors=True)  # if it is incomplete
    with replacing(kept) as folder:
        folder.mkdir()
        shifts = _draw_held_back(folder / Path(paths.HELD_BACK).name, task, devices[0])
        save_network(
            folder / Path(paths.NETWORK).name,
            task.network,
            classes=task.classes,
            pixel_size_um=pixel_size_um,
            metrics=row,
            validation=[annotated.name for annotated in task.validation],
            described={
                "appearance": [one.appearance for one in (*task.training, *task.validation)],
                "objects": objects,
                "label_shift_px": common_shift(shifts),
            },
            origin=origin,
        )
        shutil.copyfile(task.history, folder / task.history.name)
    log.info("kept in %s", kept)


def _draw_held_back(folder: Path, task: Task, device: torch.device) -> list[Shift]:
    """Write pictures of the held-back images, and the Dice of each. Return how far labels lie beside predictions."""
    network = task.network.to(device).eval()
    scores, pictures, shifts = {}, {}, []
    for image in label_held_back(network, task.validation, num_classes=len(task.classes)):
        scores[image.name] = image.foreground_dice
        pictures[image.name] = pictures_of_training(image.pixels, image.truth, image.predicted)
        shifts += image.shifts
    write_held_back(folder, scores, pictures)
    return shifts


def _replace_folder(folder: Path, kept: Path) -> None:
    """Put the pictures of a network that was kept in place of those of the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    if (kept / folder.name).is_dir():  # not of older versions
        with replacing(folder) as temporary:
            shutil.copytree(kept / folder.name, temporary)


def _identity(origin: dict[str, Any], *, but: Collection[str] = ()) -> str:
    """Return the hash of what a training is made from, without the settings of its model in ``but``."""
    config = recipe("train", json.dumps(origin["config"])).settings
    config.pop("compares_crf", None)  # which leaves the network as it is
    model = {name: value for name, value in config["model"].items() if name not in but}
    return identity_of([NETWORK_ALGORITHMS["train"], config | {"model": model}, origin["sha256"]])


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
