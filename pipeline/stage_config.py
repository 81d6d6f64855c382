"""The part of the configuration that each stage is told, as one JSON object.

A changed setting so runs again exactly the rules that use it.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import ValidationError

from pipeline.config import ImageConfig, MetricsConfig, Settings, explain
from pipeline.errors import ConfigError
from pipeline.model_config import EnsembleConfig, LossConfig, ModelConfig
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


class TrainConfig(Section):
    """What the stage ``train`` is told."""

    labels: LabelConfig
    image: ImageConfig
    model: ModelConfig
    validation: float
    allow_empty: bool = False


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


def view_of(settings: Settings, pixel_size_um: float | None) -> ImageConfig:
    """Return how a slide is read whose pixel size the sample sheet states (µm), if it does."""
    return settings.image.model_copy(update={"fallback_pixel_size_um": pixel_size_um} if pixel_size_um else {})


def stage_config(
    settings: Settings, stage: str, model: str | None = None, *, pixel_size_um: float | None = None
) -> str:
    """Return the part of the configuration that ``stage`` uses (for one model, where it has one), as JSON.

    ``pixel_size_um`` is what the sample sheet says of a slide; it takes the place of ``fallback_pixel_size_um``.
    """
    image = view_of(settings, pixel_size_um)
    labels = LabelConfig(
        classes=settings.classes,
        kind=settings.training.kind,
        values=settings.training.values,
        ignored=settings.training.ignored,
    ).model_dump()
    network = settings.models.get(model or "", ModelConfig())
    if network.pretrained in settings.models:
        network = network.model_copy(update={"pretrained": settings.weights_of(network.pretrained)})
    sections: dict[str, Section] = {
        "tile": TileConfig(image=image, tile_px=settings.tiling.tile_px, skip_glass=settings.tiling.skip_glass),
        "weigh": WeighConfig(labels=LabelConfig(**labels), image=image, loss=network.loss),
        "train": TrainConfig(
            labels=LabelConfig(**labels),
            image=image,
            model=network,
            validation=settings.training.validation,
            allow_empty=settings.training.allow_empty,
        ),
        "combine": settings.ensembles.get(model or "", EnsembleConfig(members=["none"])),
        "predict": PredictConfig(
            classes=settings.classes,
            precision=settings.prediction.precision,
            probabilities=settings.needs_probabilities,
        ),
        "verify": VerifyConfig(classes=settings.classes),
        "stitch": settings.masks,
        "inspect": InspectConfig(image=image),
        "evaluate": EvaluateConfig(labels=LabelConfig(**labels), image=image, metrics=settings.metrics),
        "objects": ObjectsConfig(classes=settings.classes, image=image),
        "report": settings,
    }
    return sections[stage].model_dump_json()
