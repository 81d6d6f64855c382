"""The plan of one slide, which ``tile`` writes and ``predict`` and ``stitch`` read.

A slide that could not be read has a plan too: it holds the reason instead of a grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.base.files import read_json
from pipeline.networks.model_card import ModelCard
from pipeline.settings.schema import ImageConfig
from pipeline.slides.intensity import Statistics
from pipeline.tiling.grid import Grid, Tile
from pipeline.tiling.memory_budget import largest_window_px

_BLENDED_PX = 512  # tiles of networks with global context


@dataclass(frozen=True, kw_only=True)
class SlidePlan:
    """The plan of a readable slide.

    ``tissue`` lists the tiles to segment as runs [first, stop) of their numbers, row by row; None: all of them.
    """

    slide: Path
    slide_sha256: str
    grid: Grid
    view: ImageConfig
    statistics: list[Statistics]
    pixel_size_um: tuple[float, float] | None
    tissue: list[tuple[int, int]] | None = None

    @property
    def count(self) -> int:
        """Number of tiles to segment."""
        return int(self._holds_tissue().sum())

    def without(self, first: int) -> Self:
        """Return the plan without the ``first`` tiles that are to be segmented."""
        numbers = np.flatnonzero(self._holds_tissue())
        start = int(numbers[first])
        runs = [(0, self.grid.count)] if self.tissue is None else self.tissue
        return replace(self, tissue=[(max(begin, start), stop) for begin, stop in runs if stop > start])

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles to segment, row by row."""
        return compress(self.grid.tiles(), self._holds_tissue())

    def glass(self) -> Iterator[Tile]:
        """Yield the other tiles, which are background."""
        return compress(self.grid.tiles(), ~self._holds_tissue())

    def _holds_tissue(self) -> NDArray[np.bool_]:
        holds = np.full(self.grid.count, self.tissue is None)
        for first, stop in self.tissue or []:
            holds[first:stop] = True
        return holds

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return asdict(self) | {"slide": str(self.slide), "view": self.view.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned."""
        pixel_size, tissue = content["pixel_size_um"], content["tissue"]
        return cls(
            slide=Path(content["slide"]),
            slide_sha256=content["slide_sha256"],
            grid=Grid.from_dict(content["grid"]),
            view=ImageConfig.model_validate(content["view"]),
            statistics=[Statistics(**channel) for channel in content["statistics"]],
            pixel_size_um=(pixel_size[0], pixel_size[1]) if pixel_size else None,
            tissue=None if tissue is None else [(first, stop) for first, stop in tissue],
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a sample: that of its slide, or the error why it has none."""

    sample: str
    slide: SlidePlan | None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.slide is None) == (self.error is None):
            raise ValueError(f"the plan of {self.sample!r} must have either a slide or an error")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {"sample": self.sample, "error": self.error, "slide": self.slide.to_dict() if self.slide else None}


def plan_grid(shape: tuple[int, int], card: ModelCard, memory_mb: int, tile_px: int | None) -> Grid:
    """Return the largest tiles that the settings allow; tiles that are blended stay as small as training patches."""
    if tile_px is None and card.geometry.context_px is None:
        tile_px = _BLENDED_PX
    if tile_px is not None:
        return Grid.plan(shape, geometry=card.geometry, tile_px=tile_px)
    try:
        return Grid.within(shape, geometry=card.geometry, window_px=largest_window_px(card, memory_mb))
    except ValueError as error:
        raise ConfigError(f"tiling.memory_mb of {memory_mb}: {error}; raise it") from error


def read_plan(path: Path) -> Plan:
    """Read a plan that the stage ``tile`` wrote."""
    content = read_json(path)
    try:
        slide = SlidePlan.from_dict(content["slide"]) if content["slide"] else None
        return Plan(sample=content["sample"], slide=slide, error=content["error"])
    except (KeyError, TypeError, ValueError) as error:
        raise SlidemillError(f"{path}: not a plan of this version: {error!r}; remove it and run again") from error
