"""The part of the configuration that each stage of a project gets, as one JSON object."""

from __future__ import annotations

from pipeline.base.paths import WEIGHTS
from pipeline.project.sample_sheet import NOTHING, Stated
from pipeline.settings.networks import EnsembleConfig, ModelConfig
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.section import Section
from pipeline.settings.stages import (
    EvaluateConfig,
    InspectConfig,
    LabelConfig,
    ObjectsConfig,
    PredictConfig,
    SplitConfig,
    TileConfig,
    TrainConfig,
    ValidateConfig,
    VerifyConfig,
    WeighConfig,
)


def view_of(settings: Settings, stated: Stated) -> ImageConfig:
    """Return how a slide is read of which the sample sheet states this."""
    size = {} if stated.pixel_size_um is None else {"fallback_pixel_size_um": stated.pixel_size_um}
    channels = {} if stated.channels is None else {"channels": list(stated.channels)}
    return settings.image.model_copy(update=size | channels)


def network_file(settings: Settings, name: str) -> str:
    """Return the path of a network (of a model, an ensemble or a fold): its checkpoint, or what is trained."""
    return settings.networks.get(name) or WEIGHTS.format(model=name)


def start_of(settings: Settings, name: str) -> str | None:
    """Return what the training of this name starts from: `imagenet`, a path, or nothing; a fold from the same fold."""
    model, fold = settings.trainings.get(name, (name, None))
    start = settings.models[model].pretrained if model in settings.models else None
    if start not in settings.models:
        return start
    return network_file(settings, f"{start}/fold{fold}" if settings.models[start].folds else start)


def split_of(settings: Settings, name: str) -> SplitConfig:
    """Return what is held back from the training of this name."""
    model, fold = settings.trainings.get(name, (name, None))
    training = settings.training
    if fold is None:
        return SplitConfig(samples=training.samples, validation=training.validation)
    return SplitConfig(samples=training.samples, folds=settings.models[model].folds, fold=fold)


def stage_config(
    settings: Settings,
    stage: str,
    model: str | None = None,
    *,
    stated: Stated = NOTHING,
    probabilities: bool | None = None,
) -> str:
    """Return the part of the configuration that ``stage`` uses (for one model, where it has one), as JSON.

    ``stated`` is what the sample sheet says of a slide; it takes the place of what the configuration says.
    ``probabilities`` is whether a batch is predicted with them; None: whether the configuration needs any.
    """
    image = view_of(settings, stated)
    labels = LabelConfig(
        classes=settings.classes,
        kind=settings.training.kind,
        values=settings.training.values,
        ignored=settings.training.ignored,
    ).model_dump()
    name, _ = settings.trainings.get(model or "", (model or "", None))
    network = settings.models.get(name, ModelConfig()).model_copy(
        update={"pretrained": start_of(settings, model or "")}
    )
    tile = TileConfig(image=image, tile_px=settings.tiling.tile_px, skip_glass=settings.tiling.skip_glass)
    sections: dict[str, Section] = {
        "tile": tile,
        "weigh": WeighConfig(labels=LabelConfig(**labels), image=image, loss=network.loss),
        "train": TrainConfig(
            labels=LabelConfig(**labels),
            image=image,
            model=network,
            split=split_of(settings, model or ""),
            allow_empty=settings.training.allow_empty,
        ),
        "combine": settings.averages.get(model or "", EnsembleConfig(members=["none"])),
        "validate": ValidateConfig(
            labels=LabelConfig(**labels),
            tile=tile,
            masks=settings.masks,
            metrics=settings.metrics,
            precision=settings.prediction.precision,
            split=split_of(settings, model or ""),
        ),
        "predict": PredictConfig(
            classes=settings.classes,
            precision=settings.prediction.precision,
            compile=settings.prediction.compile,
            probabilities=settings.needs_probabilities if probabilities is None else probabilities,
        ),
        "verify": VerifyConfig(classes=settings.classes),
        "stitch": settings.masks,
        "inspect": InspectConfig(image=image),
        "evaluate": EvaluateConfig(labels=LabelConfig(**labels), image=image, metrics=settings.metrics),
        "objects": ObjectsConfig(classes=settings.classes, image=image),
        "report": settings,
    }
    return sections[stage].model_dump_json()
