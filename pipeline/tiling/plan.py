"""The plan of one slide, which ``tile`` writes and ``predict`` and ``stitch`` read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely.geometry
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.base.files import read_json
from pipeline.networks.model_card import ModelCard
from pipeline.settings.schema import ImageConfig
from pipeline.slides.intensity import Statistics
from pipeline.tiling.grid import Grid, Region, Tile
from pipeline.tiling.inside import parts_inside
from pipeline.tiling.memory_budget import largest_window_px

_BLENDED_PX = 512  # tiles of networks with global context


@dataclass(frozen=True, kw_only=True)
class SlidePlan:
    """The plan of a slide, or of a plane of a stack that is segmented plane by plane.

    Attributes
    ----------
    plane : dict of int
        Number of the plane along ``t``, ``z`` or both, those that ``image`` says ``each`` of; empty for other slides.
    z_step_um : float or None
        Distance between the planes along ``z``, where they are segmented one by one; None if it is not known.
    tissue : list of (first, stop) or None
        The tiles that are no glass, as runs of their numbers, row by row; None: all of them.
    regions : list of dict or None
        The polygons that the mask is cut to, as geometries of GeoJSON in pixels of the grid; None: it is not cut.
    """

    slide: Path
    slide_sha256: str
    grid: Grid
    view: ImageConfig
    statistics: list[Statistics]
    pixel_size_um: tuple[float, float] | None
    tissue: list[tuple[int, int]] | None = None
    regions: list[dict[str, Any]] | None = None
    plane: dict[str, int] = field(default_factory=dict)
    z_step_um: float | None = None

    @property
    def count(self) -> int:
        """Number of tiles to segment."""
        return int(self._are_segmented.sum())

    @property
    def window_px(self) -> int:
        """Number of pixels that go through the network, halos and surround included."""
        return sum(math.prod(tile.read.shape) for tile in self.tiles())

    @property
    def polygons(self) -> list[BaseGeometry]:
        """Those that the mask is cut to, none if it is not cut."""
        return [shapely.geometry.shape(polygon) for polygon in self.regions or []]

    def without(self, first: int) -> Self:
        """Return the plan without the ``first`` tiles that are to be segmented."""
        numbers = np.flatnonzero(self._are_segmented)
        start = int(numbers[first])
        runs = [(0, self.grid.count)] if self.tissue is None else self.tissue
        return replace(self, tissue=[(max(begin, start), stop) for begin, stop in runs if stop > start])

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles to segment, row by row; of those in regions, the part that is needed."""
        for number, tile in compress(enumerate(self.grid.tiles()), self._are_segmented):
            yield tile if self._parts is None else self.grid.narrowed(tile.write, self._parts[number])

    def glass(self) -> Iterator[Tile]:
        """Yield the other tiles, which are background."""
        return compress(self.grid.tiles(), ~self._are_segmented)

    @cached_property
    def _are_segmented(self) -> NDArray[np.bool_]:
        held = np.full(self.grid.count, self.tissue is None)
        for first, stop in self.tissue or []:
            held[first:stop] = True
        return held if self._parts is None else held & np.isin(np.arange(self.grid.count), list(self._parts))

    @cached_property
    def _parts(self) -> dict[int, Region] | None:
        """The parts of tiles in regions; None: all, also if tiles are blended, since each needs its neighbours."""
        if self.regions is None or self.grid.overlap_px:
            return None
        return parts_inside(self.polygons, self.grid)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        content = asdict(self) | {"slide": str(self.slide), "view": self.view.model_dump(mode="json")}
        unset = {"plane": not self.plane, "z_step_um": self.z_step_um is None}
        return {name: value for name, value in content.items() if not unset.get(name)}

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
            regions=content["regions"],
            plane=content.get("plane", {}),
            z_step_um=content.get("z_step_um"),
        )


def plan_grid(shape: tuple[int, int], card: ModelCard, memory_mb: int, *, tile_px: int | None, mirror_px: int) -> Grid:
    """Return the largest tiles that the settings allow; tiles that are blended stay as small as training patches."""
    if tile_px is None and card.geometry.tiling == "blended":
        tile_px = _BLENDED_PX
    if tile_px is not None:
        return Grid.plan(shape, geometry=card.geometry, tile_px=tile_px, mirror_px=mirror_px)
    try:
        window_px = largest_window_px(card, memory_mb)
        return Grid.within(shape, geometry=card.geometry, window_px=window_px, mirror_px=mirror_px)
    except ValueError as error:
        raise ConfigError(f"tiling.memory_mb of {memory_mb}: {error}; raise it") from error


def content_of(plans: Sequence[SlidePlan]) -> dict[str, Any]:
    """Return the content of the file of a slide as JSON types: its plan, or those of its planes."""
    (first, *others) = plans
    return {"planes": [plan.to_dict() for plan in plans]} if others or first.plane else first.to_dict()


def read_plans(path: Path) -> list[SlidePlan]:
    """Read what ``tile`` wrote of a slide: its plan; or those of its planes, if they are segmented one by one.

    Raises
    ------
    SlidemillError
        If the file is missing, or not a plan of this version.
    """
    content = read_json(path)
    try:
        return [SlidePlan.from_dict(plan) for plan in content.get("planes", [content])]
    except (KeyError, TypeError, ValueError) as error:
        raise SlidemillError(f"{path}: not a plan of this version: {error!r}; remove it and run again") from error
