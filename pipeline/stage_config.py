"""The part of the configuration that each stage is told, as one JSON object.

A changed setting so runs again exactly the rules that use it.
"""

from __future__ import annotations

from typing import Literal, Self, TypeVar

from pydantic import ValidationError, model_validator

from pipeline.config import ImageConfig, MaskConfig, MetricsConfig, Settings, explain
from pipeline.errors import ConfigError
from pipeline.model_config import EnsembleConfig, LossConfig, ModelConfig
from pipeline.sample_sheet import NOTHING, Stated
from pipeline.section import ClassName, Section

Part = TypeVar("Part", bound=Section)


class LabelConfig(Section):
    """How a label image becomes a class map."""

    classes: list[ClassName]
    kind: Literal["instances", "classes"]
    values: list[int] | None = None
    ignored: int | None = None


class TileConfig(Section):
    """What the stage ``tile`` is told."""

    image: ImageConfig
    tile_px: int | None
    skip_glass: bool


class WeighConfig(Section):
    """What the stage ``weigh`` is told."""

    labels: LabelConfig
    image: ImageConfig
    loss: LossConfig


class SplitConfig(Section):
    """Which training images are held back: number ``fold`` (from 1) of ``folds``, or the last ``validation`` of all."""

    samples: str
    validation: float | None = None
    folds: int | None = None
    fold: int | None = None

    @model_validator(mode="after")
    def _one_part_is_held_back(self) -> Self:
        if (self.validation is None) == (self.folds is None) or (self.folds is None) != (self.fold is None):
            raise ValueError(f"give validation, or folds and fold, got {self.validation}, {self.folds} and {self.fold}")
        if self.folds and self.fold and not 1 <= self.fold <= self.folds:
            raise ValueError(f"fold must be from 1 to {self.folds}, got {self.fold}")
        return self


class TrainConfig(Section):
    """What the stage ``train`` is told."""

    labels: LabelConfig
    image: ImageConfig
    model: ModelConfig
    split: SplitConfig
    allow_empty: bool = False


class ValidateConfig(Section):
    """What the stage ``validate`` is told."""

    labels: LabelConfig
    tile: TileConfig
    masks: MaskConfig
    metrics: MetricsConfig
    precision: Literal["float32", "bfloat16"]
    split: SplitConfig


class InspectConfig(Section):
    """What the stage ``inspect`` is told."""

    image: ImageConfig


class EvaluateConfig(Section):
    """What the stage ``evaluate`` is told."""

    labels: LabelConfig
    image: ImageConfig = ImageConfig()
    metrics: MetricsConfig


class PredictConfig(Section):
    """What the stage ``predict`` is told."""

    classes: list[ClassName]
    precision: Literal["float32", "bfloat16"]
    compile: bool = False
    probabilities: bool


class VerifyConfig(Section):
    """What the stage ``verify`` is told."""

    classes: list[ClassName]


class ObjectsConfig(Section):
    """What the stage ``objects`` is told."""

    classes: list[ClassName]
    image: ImageConfig


def parse_stage_config(kind: type[Part], text: str) -> Part:
    """Read the JSON object that the workflow passes to a stage; raise :class:`ConfigError` as above."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"--config: {explain(error, kind)}") from None


def view_of(settings: Settings, stated: Stated) -> ImageConfig:
    """Return how a slide is read of which the sample sheet states this."""
    size = {} if stated.pixel_size_um is None else {"fallback_pixel_size_um": stated.pixel_size_um}
    channels = {} if stated.channels is None else {"channels": list(stated.channels)}
    return settings.image.model_copy(update=size | channels)


def start_of(settings: Settings, name: str) -> str | None:
    """Return what the training of this name starts from: `imagenet`, a path, or nothing; a fold from the same fold."""
    model, fold = settings.trainings.get(name, (name, None))
    start = settings.models[model].pretrained if model in settings.models else None
    if start not in settings.models:
        return start
    return settings.weights_of(f"{start}/fold{fold}" if settings.models[start].folds else start)


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
