"""Fill ``--config`` of each stage from the configuration: JSON of the types in ``stage_sections.py``."""

from __future__ import annotations

from pathlib import Path

import models
from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.base.files import read_json
from pipeline.base.paths import KEPT, NETWORK
from pipeline.project.sample_sheet import SheetRow
from pipeline.settings.ensembles import EnsembleConfig
from pipeline.settings.masks import MaskConfig, resolve_masks
from pipeline.settings.networks import ModelConfig
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.section import Section
from pipeline.settings.stage_sections import (
    CombineConfig,
    ComparisonConfig,
    EvaluateConfig,
    LabelConfig,
    ObjectsConfig,
    PredictConfig,
    SplitConfig,
    StitchConfig,
    TileConfig,
    TrainConfig,
    ValidateConfig,
    VerifyConfig,
    WeighConfig,
)


def view_of(image: ImageConfig, row: SheetRow) -> ImageConfig:
    """Return how the slide of this row of the sample sheet is read; ``image`` is how the others are."""
    size = {} if row.pixel_size_um is None else {"stated_pixel_size_um": row.pixel_size_um}
    channels = {} if row.channels is None else {"channels": list(row.channels)}
    return image.model_copy(update=size | channels)


def network_file(settings: Settings, name: str) -> str:
    """Return the path of the network of a model, ensemble or fold: its checkpoint, or the file that training writes."""
    return settings.networks.get(name) or NETWORK.format(model=name)


def masks_of(masks: MaskConfig, network: Path) -> MaskConfig:
    """Return the configuration of masks for the predictions of a network file, without ``auto``."""
    try:
        card = read_json(network.with_name("model.json"))
    except SlidemillError:  # said where the network is used
        card = {}
    return resolve_masks(masks, card)


def start_of(settings: Settings, name: str) -> str | None:
    """Return what a training starts from: `imagenet`, a path, or nothing. A fold starts from the same fold.

    Raises
    ------
    ConfigError
        If that is what the training writes: it would train again in every run.
    """
    model, _ = settings.trainings.get(name, (name, None))
    before = training_of_start(settings, name)
    if before is not None:
        return network_file(settings, before)
    start = settings.models[model].pretrained if model in settings.models else None
    if start and Path(start).resolve() in [Path(NETWORK.format(model=one)).resolve() for one in (model, name)]:
        kept = KEPT.format(model=name, identity="*")
        raise ConfigError(
            f"models.{model}.pretrained: {start} is what this training writes; name a network that is kept, "
            f"{kept}/model.safetensors, or a copy"
        )
    return start


def training_of_start(settings: Settings, name: str) -> str | None:
    """Return the network of this project that a training starts from, if it starts from one."""
    model, fold = settings.trainings.get(name, (name, None))
    start = settings.models[model].pretrained if model in settings.models else None
    if start not in settings.models:
        return None
    return f"{start}/fold{fold}" if settings.models[start].folds else start


def split_of(settings: Settings, name: str) -> SplitConfig:
    """Return what is held back from a training."""
    model, fold = settings.trainings.get(name, (name, None))
    training = settings.training
    if fold is None:
        return SplitConfig(samples=training.samples, validation=training.validation)
    return SplitConfig(samples=training.samples, folds=settings.models[model].folds, fold=fold)


def comparison_of(settings: Settings, name: str) -> ComparisonConfig | None:
    """Return how an ensemble is compared on held-back images; None if a member may have learned from them."""
    parts = [settings.trainings.get(member) for member in settings.averages[name].members]
    if not all(part and part[1] is None for part in parts):
        return None
    return ComparisonConfig(
        labels=labels_of(settings),
        image=settings.image,
        split=split_of(settings, name),
        compares_crf=settings.masks.crf == "auto",
    )


def labels_of(settings: Settings) -> LabelConfig:
    """Return how label images and references are read."""
    training = settings.training
    return LabelConfig(classes=settings.classes, kind=training.kind, values=training.values, ignored=training.ignored)


def stage_config(settings: Settings, stage: str, model: str | None = None) -> str:
    """Return the part of the configuration that a stage uses, as JSON.

    ``model`` is the model, ensemble or fold that the job works on, if there is one.
    """
    image = settings.image
    labels = labels_of(settings)
    name, _ = settings.trainings.get(model or "", (model or "", None))
    network = settings.models.get(name, ModelConfig()).model_copy(
        update={"pretrained": start_of(settings, model or "")}
    )
    split = split_of(settings, model or "")
    tiling = settings.tiling
    tile = TileConfig(image=image, tile_px=tiling.tile_px, mirror_px=tiling.mirror_px, skip_glass=tiling.skip_glass)
    sections: dict[str, Section] = {
        "tile": tile,
        "weigh": _weigh_config(labels, image, network),
        "train": TrainConfig(
            labels=labels,
            image=image,
            model=network,
            split=split,
            allow_empty=settings.training.allow_empty,
            compares_crf=settings.masks.crf == "auto",
        ),
        "combine": _combine_config(settings, model or ""),
        "validate": ValidateConfig(
            labels=labels,
            tile=tile,
            masks=_unchosen(settings.masks),
            metrics=settings.metrics,
            precision=settings.prediction.precision,
            split=split,
        ),
        "predict": PredictConfig(
            classes=settings.classes,
            precision=settings.prediction.precision,
            compile=settings.prediction.compile,
            probabilities=settings.prediction.probabilities,
            masks=settings.masks,
        ),
        "verify": VerifyConfig(classes=settings.classes, crf=settings.masks.crf),
        "stitch": StitchConfig(classes=settings.classes, masks=settings.masks),
        "evaluate": EvaluateConfig(
            labels=labels, image=image, metrics=settings.metrics, probabilities=settings.prediction.probabilities
        ),
        "objects": ObjectsConfig(classes=settings.classes, image=image, measurements=settings.measurements),
        "report": settings,
    }
    return sections[stage].model_dump_json()


def _unchosen(masks: MaskConfig) -> MaskConfig:
    """Return the masks of a validation, for which no random field is chosen: that would be on the same images."""
    return masks.model_copy(update={"crf": None}) if masks.crf == "auto" else masks


def _combine_config(settings: Settings, name: str) -> CombineConfig:
    if name not in settings.averages:
        return CombineConfig(ensemble=EnsembleConfig(members=["none"]))
    return CombineConfig(ensemble=settings.averages[name], comparison=comparison_of(settings, name))


def _weigh_config(labels: LabelConfig, image: ImageConfig, network: ModelConfig) -> WeighConfig:
    objects = models.detects_objects(network.architecture)
    return WeighConfig(labels=labels, image=image, loss=network.loss, heads=network.heads, objects=objects)
