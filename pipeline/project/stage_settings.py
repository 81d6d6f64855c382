"""Fill ``--config`` of each stage from the configuration: JSON of the types in ``stage_sections.py``."""

from __future__ import annotations

from pipeline.base.paths import NETWORK
from pipeline.project.sample_sheet import SheetRow
from pipeline.settings.networks import EnsembleConfig, ModelConfig
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.section import Section
from pipeline.settings.stage_sections import (
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


def view_of(settings: Settings, row: SheetRow) -> ImageConfig:
    """Return how the slide of this row of the sample sheet is read."""
    size = {} if row.pixel_size_um is None else {"fallback_pixel_size_um": row.pixel_size_um}
    channels = {} if row.channels is None else {"channels": list(row.channels)}
    return settings.image.model_copy(update=size | channels)


def network_file(settings: Settings, name: str) -> str:
    """Return the path of the network of a model, ensemble or fold: its checkpoint, or the file that training writes."""
    return settings.networks.get(name) or NETWORK.format(model=name)


def start_of(settings: Settings, name: str) -> str | None:
    """Return what a training starts from: `imagenet`, a path, or nothing. A fold starts from the same fold."""
    model, fold = settings.trainings.get(name, (name, None))
    start = settings.models[model].pretrained if model in settings.models else None
    if start not in settings.models:
        return start
    return network_file(settings, f"{start}/fold{fold}" if settings.models[start].folds else start)


def split_of(settings: Settings, name: str) -> SplitConfig:
    """Return what is held back from a training."""
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
    row: SheetRow | None = None,
    probabilities: bool | None = None,
) -> str:
    """Return the part of the configuration that a stage uses, as JSON.

    Parameters
    ----------
    model : str or None
        The model, ensemble or fold that the job works on, if there is one.
    row : SheetRow or None
        What the sample sheet says of a slide; it overrides the configuration.
    probabilities : bool or None
        Whether a batch is predicted with probabilities; None: if the configuration needs them.
    """
    image = view_of(settings, row or SheetRow())
    labels = LabelConfig(
        classes=settings.classes,
        kind=settings.training.kind,
        values=settings.training.values,
        ignored=settings.training.ignored,
    )
    name, _ = settings.trainings.get(model or "", (model or "", None))
    network = settings.models.get(name, ModelConfig()).model_copy(
        update={"pretrained": start_of(settings, model or "")}
    )
    split = split_of(settings, model or "")
    tile = TileConfig(image=image, tile_px=settings.tiling.tile_px, skip_glass=settings.tiling.skip_glass)
    sections: dict[str, Section] = {
        "tile": tile,
        "weigh": WeighConfig(labels=labels, image=image, loss=network.loss),
        "train": TrainConfig(
            labels=labels, image=image, model=network, split=split, allow_empty=settings.training.allow_empty
        ),
        "combine": settings.averages.get(model or "", EnsembleConfig(members=["none"])),
        "validate": ValidateConfig(
            labels=labels,
            tile=tile,
            masks=settings.masks,
            metrics=settings.metrics,
            precision=settings.prediction.precision,
            split=split,
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
        "evaluate": EvaluateConfig(labels=labels, image=image, metrics=settings.metrics),
        "objects": ObjectsConfig(classes=settings.classes, image=image),
        "report": settings,
    }
    return sections[stage].model_dump_json()
