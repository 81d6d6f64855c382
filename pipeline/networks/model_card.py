"""A trained network on disk: ``model.safetensors`` (weights) and ``model.json`` (everything else) beside it.

Nothing is unpickled: a downloaded network cannot run code.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from models.base.geometry import Geometry
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.slides.intensity import NORMALIZATION

_MANY_BYTES_PER_PX = 2000  # more than any known network needs, for cards of older versions


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The content of ``model.json``."""

    architecture: str
    options: dict[str, Any]
    classes: list[str]
    in_channels: int
    geometry: Geometry
    pixel_size_um: tuple[float, float] | None
    normalization: dict[str, Any]
    metrics: dict[str, Any]
    validation: list[str]
    appearance: list[dict[str, float]] = field(default_factory=list)
    parameters: int | None = None
    bytes_per_px: int = _MANY_BYTES_PER_PX
    gflops_per_mpx: float | None = None
    paper: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON types; the geometry is not nested."""
        content: dict[str, Any] = {}
        for name, value in asdict(self).items():
            content |= value if name == "geometry" else {name: value}
        finite = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        return content | {"metrics": finite}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read the result of :meth:`to_dict`; other keys are ignored."""
        geometry = Geometry(**{field.name: content[field.name] for field in fields(Geometry)})
        pixel_size = content["pixel_size_um"]
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        return cls(**known | {"geometry": geometry, "pixel_size_um": tuple(pixel_size) if pixel_size else None})


def card_path(weights: Path) -> Path:
    """Return the path of the card of a network file."""
    return weights.with_name("model.json")


def read_card(path: Path) -> ModelCard:
    """Read ``model.json``; raise :class:`SlidemillError` if it is missing, damaged or of another normalization."""
    try:
        card = ModelCard.from_dict(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise SlidemillError(f"{path}: not a model.json of Slidemill: {error!r}") from error
    if card.normalization != NORMALIZATION:
        raise SlidemillError(f"{path}: unknown normalization {card.normalization}; this version has {NORMALIZATION}")
    return card
