"""The types of ``--config``: the settings that each stage uses.

A stage gets no others, so a changed setting runs exactly those rules again that use it.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self, TypeVar

from pydantic import ValidationError, model_validator

from pipeline.base.errors import ConfigError
from pipeline.settings.crf import CrfConfig
from pipeline.settings.ensembles import EnsembleConfig
from pipeline.settings.masks import MaskConfig
from pipeline.settings.measurements import MeasurementsConfig
from pipeline.settings.networks import HeadsConfig, LossConfig, ModelConfig
from pipeline.settings.schema import ImageConfig, MetricsConfig, explain
from pipeline.settings.section import ClassName, Precision, Section

Part = TypeVar("Part", bound=Section)


class LabelConfig(Section):
    """How a label image becomes a class map."""

    classes: list[ClassName]
    kind: Literal["instances", "classes"]
    values: list[int] | None = None
    ignored: int | None = None


class TileConfig(Section):
    """What the stage ``tile`` gets."""

    image: ImageConfig
    tile_px: int | None
    mirror_px: int
    skip_glass: bool


class WeighConfig(Section):
    """What the stage ``weigh`` gets."""

    younger: ClassVar[frozenset[str]] = frozenset({"objects"})

    labels: LabelConfig
    image: ImageConfig
    loss: LossConfig
    heads: HeadsConfig = HeadsConfig()
    objects: bool = False  # whether the network learns them one by one


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


class ComparisonConfig(Section):
    """How a network is compared on the images held back from it, and whether random fields are too."""

    labels: LabelConfig
    image: ImageConfig
    split: SplitConfig
    compares_crf: bool


class TrainConfig(Section):
    """What the stage ``train`` gets."""

    younger: ClassVar[frozenset[str]] = frozenset({"compares_crf"})

    labels: LabelConfig
    image: ImageConfig
    model: ModelConfig
    split: SplitConfig
    allow_empty: bool = False
    compares_crf: bool = False  # whether random fields are tried on the held-back images

    @property
    def comparison(self) -> ComparisonConfig:
        """How the network is compared."""
        return ComparisonConfig(labels=self.labels, image=self.image, split=self.split, compares_crf=self.compares_crf)


class CombineConfig(Section):
    """What the stage ``combine`` gets."""

    ensemble: EnsembleConfig
    comparison: ComparisonConfig | None = None  # null: its members do not hold back the same images


class ValidateConfig(Section):
    """What the stage ``validate`` gets."""

    labels: LabelConfig
    tile: TileConfig
    masks: MaskConfig
    metrics: MetricsConfig
    precision: Precision
    split: SplitConfig


class EvaluateConfig(Section):
    """What the stage ``evaluate`` gets."""

    labels: LabelConfig
    image: ImageConfig = ImageConfig()
    metrics: MetricsConfig
    probabilities: bool = False  # whether those of the prediction are measured too


class PredictConfig(Section):
    """What the stage ``predict`` gets."""

    classes: list[ClassName]
    precision: Precision
    compile: bool = False
    probabilities: bool  # whether the user asks for them
    masks: MaskConfig = MaskConfig()  # what they need is kept too


class StitchConfig(Section):
    """What the stage ``stitch`` gets."""

    classes: list[ClassName]
    masks: MaskConfig = MaskConfig()


class VerifyConfig(Section):
    """What the stage ``verify`` gets."""

    younger: ClassVar[frozenset[str]] = frozenset({"crf"})

    classes: list[ClassName]
    crf: CrfConfig | Literal["auto"] | None = None


class ObjectsConfig(Section):
    """What the stage ``objects`` gets."""

    classes: list[ClassName]
    image: ImageConfig
    measurements: MeasurementsConfig = MeasurementsConfig()


def parse_stage_config(kind: type[Part], text: str) -> Part:
    """Read the JSON object that the workflow passes to a stage; raise :class:`ConfigError` if it is wrong."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"--config: {explain(error, kind)}") from None
