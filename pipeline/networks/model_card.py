"""A trained network on disk: ``model.safetensors`` (weights) and ``model.json`` (everything else) beside it.

Nothing is unpickled: a downloaded network cannot run code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    appearance: list[dict[str, float]]
    parameters: int | None = None
    bytes_per_px: int = _MANY_BYTES_PER_PX
    gflops_per_mpx: float | None = None
    paper: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON types."""
        return {
            "architecture": self.architecture,
            "options": self.options,
            "classes": self.classes,
            "in_channels": self.in_channels,
            "stride_px": self.geometry.stride_px,
            "context_px": self.geometry.context_px,
            "margin_px": self.geometry.margin_px,
            "remainder_px": self.geometry.remainder_px,
            "pixel_size_um": self.pixel_size_um,
            "normalization": self.normalization,
            "metrics": {name: value if math.isfinite(value) else None for name, value in self.metrics.items()},
            "validation": self.validation,
            "appearance": self.appearance,
            "parameters": self.parameters,
            "bytes_per_px": self.bytes_per_px,
            "gflops_per_mpx": self.gflops_per_mpx,
            "paper": self.paper,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned."""
        pixel_size = content["pixel_size_um"]
        return cls(
            architecture=content["architecture"],
            options=content["options"],
            classes=content["classes"],
            in_channels=content["in_channels"],
            geometry=Geometry(
                stride_px=content["stride_px"],
                context_px=content["context_px"],
                margin_px=content["margin_px"],
                remainder_px=content["remainder_px"],
            ),
            pixel_size_um=(pixel_size[0], pixel_size[1]) if pixel_size else None,
            normalization=content["normalization"],
            metrics=content["metrics"],
            validation=content["validation"],
            appearance=content.get("appearance", []),
            parameters=content.get("parameters"),
            bytes_per_px=content.get("bytes_per_px", _MANY_BYTES_PER_PX),
            gflops_per_mpx=content.get("gflops_per_mpx"),
            paper=content.get("paper"),
        )


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
