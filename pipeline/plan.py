"""The plan of one slide: what ``tile`` learned about it, and what ``predict`` and ``stitch`` need to know.

A slide that could not be read has a plan too: it carries the reason instead of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.config import ImageConfig
from pipeline.errors import SlidemillError
from pipeline.files import read_json
from pipeline.intensity import Statistics
from pipeline.tiling import Grid


@dataclass(frozen=True, kw_only=True)
class SlidePlan:
    """What is known of a readable slide."""

    slide: Path
    slide_sha256: str
    grid: Grid
    view: ImageConfig
    statistics: list[Statistics]
    pixel_size_um: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            "slide": str(self.slide),
            "slide_sha256": self.slide_sha256,
            "grid": self.grid.to_dict(),
            "view": self.view.model_dump(mode="json"),
            "statistics": [channel.to_dict() for channel in self.statistics],
            "pixel_size_um": self.pixel_size_um,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned."""
        pixel_size = content["pixel_size_um"]
        return cls(
            slide=Path(content["slide"]),
            slide_sha256=content["slide_sha256"],
            grid=Grid.from_dict(content["grid"]),
            view=ImageConfig.model_validate(content["view"]),
            statistics=[Statistics.from_dict(channel) for channel in content["statistics"]],
            pixel_size_um=(pixel_size[0], pixel_size[1]) if pixel_size else None,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a sample: of a readable slide, or the reason why there is none."""

    sample: str
    slide: SlidePlan | None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.slide is None) == (self.error is None):
            raise ValueError(f"a plan of {self.sample!r} has either a slide or an error")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {"sample": self.sample, "error": self.error, "slide": self.slide.to_dict() if self.slide else None}


def read_plan(path: Path) -> Plan:
    """Read a plan that the stage ``tile`` wrote."""
    content = read_json(path)
    try:
        slide = SlidePlan.from_dict(content["slide"]) if content["slide"] else None
        return Plan(sample=content["sample"], slide=slide, error=content["error"])
    except (KeyError, TypeError, ValueError) as error:
        raise SlidemillError(f"{path}: not a plan of this version: {error!r}; remove it and run again") from error
