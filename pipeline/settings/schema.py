"""The configuration: every key with its type, default, limits and meaning, in this one place.

``config.yaml`` is read into :class:`Settings`. ``config/README.md`` and ``workflow/schemas/config.schema.json`` are
written from these classes by ``make docs``.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

import models
from pipeline.base.errors import ConfigError
from pipeline.settings.ensembles import EnsembleConfig
from pipeline.settings.masks import MaskConfig
from pipeline.settings.measurements import MeasurementsConfig
from pipeline.settings.networks import ModelConfig, TrainingConfig
from pipeline.settings.regions import RegionsConfig
from pipeline.settings.section import (
    ClassName,
    Index,
    ModelName,
    Name,
    NonNegative,
    Place,
    Positive,
    Precision,
    Section,
)
from pipeline.settings.yaml_file import read_yaml


class ImageConfig(Section):
    """What is read from slides and training images. Label images and references are read as they are."""

    channels: list[Index | Name] = Field(
        [0],
        min_length=1,
        description="Channels that the network sees: numbers, counted from 0, or names in the file. If it is not set, "
        "all three colours where training images (or a network of yours) and slides are RGB, else the first channel.",
    )
    z: Index | Literal["max", "each"] | None = Field(
        None,
        description="Plane of a stack, counted from 0, `max` for the maximum projection, or `each` to segment all "
        "planes, each like a slide of its own: the mask is a stack, and tables have a column `z`. Training images are "
        "single planes then. null: there is one plane; a stack is an error.",
    )
    pages: Literal["z", "channels"] = Field(
        "z", description="What the pages of a TIFF are that does not say it: planes of a stack, or channels."
    )
    t: Index | Literal["each"] | None = Field(
        None,
        description="Time point, counted from 0, or `each` to segment all of them, as for `z`. null: there is only "
        "one; more are an error.",
    )
    series: Index | Name | None = Field(
        None,
        description="Series, scene or position of files with several images: a number, counted from 0, or a name. "
        "null: the first; there is a flag if there are more.",
    )
    level: Index = Field(0, description="Level of a pyramid to segment, counted from 0, the finest.")
    pixel_size_um: Positive | None = Field(
        None,
        description="Pixel size in µm to segment at: slides are read at the coarsest level that is at least as fine, "
        "then averaged over area (interpolated if no level is). null: as in the file. Training images are resampled "
        "too, so that all have the size the network learned. Label images and references may have the shape of the "
        "file or of the result; they are sampled at pixel centres.",
    )
    fallback_pixel_size_um: Positive | None = Field(
        None,
        description="Pixel size in µm of images whose file has none; null leaves them without one.",
    )
    stated_pixel_size_um: Positive | None = Field(
        None,
        description="Pixel size in µm of the finest level of all images, whatever their files say; null: as in the "
        "file. A sample sheet states it per slide.",
    )

    @property
    def each(self) -> tuple[str, ...]:
        """The axes of which every plane is segmented; planes are counted in this order, the last axis fastest."""
        return tuple(axis for axis in ("t", "z") if getattr(self, axis) == "each")

    @model_validator(mode="after")
    def _one_way_to_choose_the_resolution(self) -> Self:
        if self.level and self.pixel_size_um is not None:
            raise ValueError("level and pixel_size_um both choose the resolution; set one of them")
        return self


class BatchConfig(Section):
    """Which slides share a job; it decides nothing about their results."""

    samples: int = Field(
        1000, ge=1, description="Most slides of a batch: the slides of a folder that a job works through together."
    )
    size_mb: Positive = Field(
        2000.0,
        description="Most MB of the slides of a batch, as they are on disk. A larger slide is a batch of its own.",
    )


MIRROR_PX = 16  # held-back images are predicted with it too


class TilingConfig(Section):
    """How slides are cut into tiles. It affects speed and memory, and the result only near the border of slides
    (`mirror_px`), of networks with global context, and where glass is skipped.
    """

    memory_mb: int = Field(
        4000,
        ge=1000,
        description="Memory in MB that a job which reads or predicts slides may use. Tiles are as large as it allows, "
        "since larger tiles have less overlap; a file whose pieces (tiles, strips, chunks, planes, a whole PNG) do not "
        "fit is refused before it is decoded.",
    )
    tile_px: int | None = Field(
        None,
        ge=16,
        description="Largest side in px of a tile, without its halo; null: what `memory_mb` allows, or 512 for "
        "networks with global context.",
    )
    mirror_px: int = Field(
        MIRROR_PX,
        ge=0,
        description="Mirrored px that the network sees around a slide, in whole strides and at most its halo. Small "
        "images are faster with fewer. Networks that crop their input, or with global context, take what they need.",
    )
    skip_glass: bool = Field(
        True,
        description="Assign tiles that show only glass to the first class without the network. Only on 8-bit RGB "
        "slides of at least 4 million pixels with a bright, colourless background; all others are segmented "
        "completely. The log of `tile` has the number of skipped tiles.",
    )


class PredictionConfig(Section):
    """How slides are predicted, and which files are kept."""

    precision: Precision = Field(
        "float32",
        description="Arithmetic of the network. With `float32`, tiles equal one pass over the whole slide. `tf32` "
        "rounds what NVIDIA's GPUs (since Ampere) multiply to 10 bits after the point, which is faster and changes a "
        "few labels along boundaries; elsewhere it is `float32`. `bfloat16` "
        "is faster on GPUs and on processors that have it in hardware (AVX512-BF16, AMX), and changes some labels "
        "along boundaries; the first and the last convolution stay in float32.",
    )
    compile: bool = Field(
        False,
        description="Compile the network (`torch.compile`) before a batch is predicted: takes some minutes, then is "
        "faster on some GPUs, but not on processors. Labels stay the same except for rounding. Without a C++ compiler, "
        "or if compilation fails, the network runs uncompiled, with a line in the log.",
    )
    probabilities: bool = Field(
        False,
        description="Write class probabilities (float16) beside the labels; evaluate them if there is a reference.",
    )

    def kept(self, masks: MaskConfig) -> set[str]:
        """Return what predictions have beside labels: what the user asks for, and what masks without ``auto`` need."""
        return masks.needs | ({"probabilities"} if self.probabilities else set())


class MetricsConfig(Section):
    """How masks are compared with references."""

    tolerance_px: Positive = Field(
        2.0, description="Distance in px up to which two boundaries agree (surface Dice, boundary IoU)."
    )
    tolerance_um: Positive | None = Field(
        None, description="The same in µm; used instead of `tolerance_px` if the pixel size is known."
    )


class Settings(Section):
    """The whole configuration."""

    slides: Place = Field(
        "data/slides",
        description="Drop folder: image files, and folders and OME-Zarr plates of them.",
    )
    references: Place = Field(
        "data/references", description="Optional ground truth under the same relative names; the folder may be missing."
    )
    regions: RegionsConfig = RegionsConfig()
    samples: Place = Field(
        "config/samples.csv",
        description="Optional sample sheet, a CSV with the column `sample` and any of these: `group` (animal, patient, "
        "field), the unit of confidence intervals and tests; `batch`, the name shared by new slides that share their "
        "jobs, instead of their folder; `pixel_size_um`, instead of that in the file; `channels`, instead of "
        "`image.channels`, separated by `;`. Cells may be empty, except those of `group`. A changed group only renews "
        "the report; a changed channel segments that slide again, a pixel size only with `image.pixel_size_um`.",
    )
    settle_s: NonNegative = Field(
        10.0,
        description="A slide that changed less than this many seconds ago may still be being copied: it waits for the "
        "next run and is listed in the report; if all slides do, the run waits for them. A TIFF that is shorter than "
        "its header says waits too, for an hour. 0: no slide waits.",
    )
    batches: BatchConfig = BatchConfig()
    classes: list[ClassName] = Field(
        ["background", "object"], min_length=2, max_length=255, description="Names of the classes, background first."
    )
    training: TrainingConfig = TrainingConfig()
    image: ImageConfig = ImageConfig()
    tiling: TilingConfig = TilingConfig()
    models: dict[ModelName, ModelConfig] = Field(
        {"unet": ModelConfig()},
        min_length=1,
        description="Networks by a name of your choice; each is trained, run and reported beside the others.",
    )
    ensembles: dict[ModelName, EnsembleConfig] = Field(
        {}, description="Averages of networks by a name of your choice, run and reported like them."
    )
    prediction: PredictionConfig = PredictionConfig()
    masks: MaskConfig = MaskConfig()
    measurements: MeasurementsConfig = MeasurementsConfig()
    metrics: MetricsConfig = MetricsConfig()

    @property
    def networks(self) -> dict[str, str | None]:
        """All models, then all ensembles, each with its checkpoint if it has one."""
        return {name: model.checkpoint for name, model in self.models.items()} | dict.fromkeys(self.ensembles)

    @property
    def trainings(self) -> dict[str, tuple[str, int | None]]:
        """All trainings, each with its model and the fold that is held back (from 1), if there is one.

        The training of a fold is named ``unet/fold1``, which is no valid name of a model.
        """
        return {
            f"{name}/fold{fold}" if fold else name: (name, fold)
            for name, model in self.models.items()
            if not model.checkpoint
            for fold in (range(1, model.folds + 1) if model.folds else [None])
        }

    @property
    def detects_objects(self) -> bool:
        """Whether a model is of an architecture that finds objects one by one."""
        return any(models.detects_objects(model.architecture) for model in self.models.values())

    @property
    def averages(self) -> dict[str, EnsembleConfig]:
        """All averages of other networks: ensembles, and models that are trained in folds."""
        return self.ensembles | {
            name: EnsembleConfig(members=self.folds_of(name)) for name, model in self.models.items() if model.folds
        }

    def folds_of(self, model: str) -> list[str]:
        """Return the trainings of the folds of a model; none if it is one network."""
        return [name for name, (of, fold) in self.trainings.items() if of == model and fold]

    @model_validator(mode="after")
    def _objects_are_told_apart(self) -> Self:
        is_unset = "instances" not in self.masks.model_fields_set
        if is_unset and self.training.kind == "classes" and not self.detects_objects:
            object.__setattr__(self, "masks", self.masks.model_copy(update={"instances": "components"}))
        if self.masks.instances == "partition" and len(self.classes) != 2:
            raise ValueError(
                f"masks.instances 'partition' is for two classes, what separates and the objects, got {self.classes}; "
                "use 'watershed' or 'distance'"
            )
        return self

    @model_validator(mode="after")
    def _names_refer_to_models(self) -> Self:
        for name, ensemble in self.ensembles.items():
            if name in self.models:
                raise ValueError(f"ensembles.{name}: there is a model of this name; choose another")
            if unknown := sorted(set(ensemble.members) - set(self.models)):
                raise ValueError(
                    f"ensembles.{name}.members: no model {unknown[0]!r}; there are {', '.join(self.models)}"
                )
        for name in self.models:
            chain = [name]
            while (start := self.models[chain[-1]].pretrained) in self.models:
                if start in chain:
                    raise ValueError(f"models.{name}.pretrained: {' <- '.join([*chain, start])} is a circle")
                chain.append(start)
            if len(chain) > 1:
                self._check_folds_of_start(name, chain[1])
        return self

    def _check_folds_of_start(self, name: str, start: str) -> None:
        """Refuse a start that has learned from held-back images: the folds must be the same."""
        folds, others = self.models[name].folds, self.models[start].folds
        if folds != others and not self.models[start].checkpoint:
            raise ValueError(
                f"models.{name}.pretrained: {start} has folds: {others or 'null'}, {name} {folds or 'null'}; it would "
                "have learned from images that are held back; give both the same"
            )

    @model_validator(mode="after")
    def _labels_fit_classes(self) -> Self:
        if len(set(self.classes)) != len(self.classes) or {"mean", "pooled"} & set(self.classes):
            raise ValueError(f"classes must differ, and none can be named 'mean' or 'pooled', got {self.classes}")
        if self.training.kind == "instances" and len(self.classes) != 2:
            raise ValueError(f"training.kind 'instances' means two classes, got {len(self.classes)}: {self.classes}")
        values = self.training.values
        if values is not None and self.training.kind == "instances":
            raise ValueError("training.values belongs to training.kind 'classes'; remove it, or change the kind")
        if values is not None and (len(values) != len(self.classes) or len(set(values)) != len(values)):
            raise ValueError(
                f"training.values must be {len(self.classes)} different values, one per class, got {values}"
            )
        return self

    @model_validator(mode="after")
    def _compartments_are_known(self) -> Self:
        for name, compartment in self.measurements.compartments.items():
            if compartment.nucleus not in self.classes[1:]:
                raise ValueError(
                    f"measurements.compartments.{name}.nucleus: no class {compartment.nucleus!r} of objects; there are "
                    f"{', '.join(self.classes[1:])}"
                )
        if wrong := self.measurements.unknown_compartment():
            raise ValueError(wrong)
        return self


_shown = reprlib.Repr()  # a value with anchors of YAML in anchors can be endless as text
_shown.maxlevel, _shown.maxstring, _shown.maxlist, _shown.maxdict = 2, 200, 10, 10
# What pydantic says of a section that is neither one nor its other choice
_A_SECTION = re.compile(r"Input should be a valid dictionary or instance of \w+")
_CHOICE = re.compile(r"constrained-|literal\[|function-|[A-Z]\w*Config$")  # in the path of a value of several types


def parse_settings(config: Mapping[str, object], *, source: str) -> Settings:
    """Check a configuration as read from YAML and fill in the defaults.

    Raises
    ------
    ConfigError
        One line that names ``source``, the key, the value, and what is allowed.
    """
    try:
        return Settings.model_validate(dict(config))
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, Settings)}") from None


def read_settings(path: Path) -> Settings:
    """Read the configuration of a project; raise :class:`ConfigError` as above, or where there is none."""
    return parse_settings(read_yaml(path), source=str(path))


def explain(error: ValidationError, kind: type) -> str:
    """Return the first error in one line; ``kind`` is what was validated, a model or a dataclass."""
    first = error.errors()[0]
    place, messages = first["loc"], [first["msg"].removeprefix("Value error, ")]
    if place and _CHOICE.match(str(place[-1])):  # the value may have several types
        place = place[:-1]
        if first["type"] != "value_error":  # that is a rule of ours, which a value of the right type breaks
            messages = [choice["msg"] for choice in error.errors() if choice["loc"][:-1] == place]
    key = ".".join(str(part) for part in place if not _CHOICE.match(str(part)))
    if first["type"] == "extra_forbidden":
        known = ", ".join(_section_at(kind, first["loc"][:-1]).model_fields)
        return f"unknown key {key!r} (value {_shown.repr(first['input'])}); known keys here: {known}"
    message = _A_SECTION.sub("Input should be a section ({} has its defaults)", " or ".join(messages))
    return f"{key}: {message}, got {_shown.repr(first['input'])}" if key else message


def _section_at(kind: Any, path: Iterable[int | str]) -> Any:
    """Return the section of the schema that ``path`` leads to."""
    for part in path:
        if isinstance(part, str) and part in kind.model_fields:
            annotation = kind.model_fields[part].annotation
            for candidate in (annotation, *get_args(annotation)):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    kind = candidate
    return kind
