"""A trained network on disk: ``model.safetensors`` (weights) and ``model.json`` (everything else) beside it.

Nothing is unpickled: a downloaded network cannot run code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError

from models.base.geometry import Geometry
from models.base.heads import Head
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, write_json
from pipeline.settings.schema import explain
from pipeline.settings.section import Positive
from pipeline.slides.intensity import NORMALIZATION

# Cards of earlier versions: the statistics were those of all pixels of level 0, whose sample is taken now.
_OF_ALL_PIXELS = {name: NORMALIZATION[name] for name in ("kind", "low_percent", "high_percent")}
_MANY_BYTES_PER_PX = 2000  # more than any known network needs, for cards of older versions


@dataclass(frozen=True, kw_only=True)
class Parting:
    """How well objects are told apart on the held-back images, with the predictions of a network.

    Attributes
    ----------
    settings : dict
        Of :class:`pipeline.settings.masks.MaskConfig`: ``instances`` and what belongs to it; ``crf`` if classes came
        from a random field.
    f1, rand : float or None
        Mean F1 of objects over IoU 0.5 to 0.9; adapted Rand error. None without a true object.
    """

    settings: dict[str, float | str | dict[str, float]]
    f1: float | None
    rand: float | None


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The mean Dice of all classes but the first on the held-back images, after a conditional random field.

    ``settings`` are those of :class:`pipeline.settings.crf.CrfConfig` that are not the default; None: without a field.
    The Dice is None where there was nothing to measure.
    """

    settings: dict[str, float] | None
    foreground_dice: float | None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The content of ``model.json``."""

    architecture: str
    options: dict[str, Any]
    classes: Annotated[list[str], Field(min_length=2)]
    in_channels: Annotated[int, Field(ge=1)]
    geometry: Geometry
    pixel_size_um: tuple[Positive, Positive] | None
    normalization: dict[str, Any]
    metrics: dict[str, Any]
    validation: list[str]
    appearance: list[dict[str, float]] = field(default_factory=list)
    objects: dict[str, float] = field(default_factory=dict)
    label_shift_px: tuple[float, float] | None = None  # down and right, of the held-back images; not measured
    parameters: Annotated[int, Field(ge=1)] | None = None
    bytes_per_px: Annotated[int, Field(ge=1)] = _MANY_BYTES_PER_PX
    gflops_per_mpx: float | None = None
    paper: str | None = None
    heads: list[Head] = field(default_factory=list)
    parting: list[Parting] | None = None  # not compared
    crf: list[Refinement] | None = None  # not compared

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON types; the geometry is not nested."""
        content: dict[str, Any] = {}
        for name, value in asdict(self).items():
            content |= value if name == "geometry" else {name: value}
        finite = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        return content | {"metrics": finite}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read the result of :meth:`to_dict`; other keys are ignored. Raise ValidationError for a wrong type."""
        younger = {"object_px"} - content.keys()
        geometry = {field.name: content[field.name] for field in fields(Geometry) if field.name not in younger}
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        return TypeAdapter(cls).validate_json(json.dumps(known | {"geometry": geometry}), strict=True)


def member_of(card: ModelCard) -> dict[str, Any]:
    """Return a network as a member of an ensemble (:class:`models.ensemble.Ensemble`)."""
    return {"architecture": card.architecture, "options": card.options, "heads": card.heads}


def write_comparisons(card: Path, *, output: Path, **tables: Sequence[Parting] | Sequence[Refinement]) -> None:
    """Write a card again into ``output``, with tables of what was compared on the held-back images."""
    write_json(output, read_json(card) | {name: [asdict(one) for one in table] for name, table in tables.items()})


def card_path(weights: Path) -> Path:
    """Return the path of the card of a network file."""
    return weights.with_name("model.json")


def read_card(path: Path) -> ModelCard:
    """Read ``model.json``; raise :class:`SlidemillError` if it is missing, damaged or of another normalization."""
    try:
        card = ModelCard.from_dict(read_json(path))
    except KeyError as error:
        raise SlidemillError(f"{path}: not a model.json of Slidemill: it has no {error}") from error
    except ValidationError as error:
        raise SlidemillError(f"{path}: not a model.json of Slidemill: {explain(error, ModelCard)}") from error
    if card.normalization not in (NORMALIZATION, _OF_ALL_PIXELS):
        raise SlidemillError(f"{path}: unknown normalization {card.normalization}; this version has {NORMALIZATION}")
    return card
