"""Annotated areas as a label image that is drawn where it is read, on the grid of the image they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import skimage.draw
from numpy.typing import NDArray
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from pipeline.base.errors import SlideError
from pipeline.settings.stages import LabelConfig
from pipeline.slides.outlines import Annotation, read_annotations
from pipeline.slides.slide import Slide, slide_step

_BEYOND_PX = 2.0  # what an outline may reach beyond its image: a brush at the border does
_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A level of labels: a pixel has the value of the last area that holds its centre.

    Attributes
    ----------
    shape : (rows, columns)
    step : (row, column)
        Pixels of the file that a pixel is wide; areas are in pixels of the file.
    areas : sequence of shapely Polygon or MultiPolygon
    values : sequence of int
        Of each area.
    outside : int
        Value of what lies in no area.
    """

    shape: tuple[int, int]
    step: tuple[float, float]
    areas: Sequence[BaseGeometry]
    values: Sequence[int]
    outside: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", STRtree(self.areas))

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return np.dtype(np.int32)

    def read(self, rows: slice, columns: slice) -> NDArray[np.int32]:
        """Return a region inside the level as (1, row, column)."""
        wanted = [range(length)[part] for length, part in zip(self.shape, (rows, columns), strict=True)]
        pixels = np.full([len(part) for part in wanted], self.outside, dtype=self.dtype)
        top, left, bottom, right = (  # one pixel more on every side, so that cutting draws no outline within
            (end + more) * step
            for more, ends in ((-1, [part.start for part in wanted]), (1, [part.stop for part in wanted]))
            for end, step in zip(ends, self.step, strict=True)
        )
        corner = wanted[0].start, wanted[1].start
        for number in sorted(self._tree.query(shapely.box(left, top, right, bottom))):  # type: ignore[attr-defined]
            for part in shapely.get_parts(shapely.clip_by_rect(self.areas[number], left, top, right, bottom)):
                if part.geom_type == "Polygon" and not part.is_empty:
                    self._fill(pixels, part, self.values[number], corner)
        return pixels[None]

    def _fill(self, pixels: NDArray[np.int32], area: Any, value: int, corner: tuple[int, int]) -> None:
        """Set the pixels whose centres are in a polygon and not in its holes."""
        outer, *holes = (
            np.asarray(ring.coords)[:, ::-1] / self.step - 0.5 - corner for ring in (area.exterior, *area.interiors)
        )
        first = np.maximum(np.floor(outer.min(axis=0)), 0).astype(int)
        last = np.minimum(np.ceil(outer.max(axis=0)) + 1, pixels.shape).astype(int)
        if (last <= first).any():
            return
        inside = np.zeros(last - first, dtype=bool)
        for ring, is_inside in ((outer, True), *((hole, False) for hole in holes)):
            inside[skimage.draw.polygon(*(ring - first).T, shape=inside.shape)] = is_inside
        pixels[first[0] : last[0], first[1] : last[1]][inside] = value


def draw(path: Path, config: LabelConfig, *, memory_mb: int, like: Slide) -> Slide:
    """Return the areas of an annotation file as a label image on the grid of ``like``.

    Its values are those that the configuration gives a label image. With ``kind: instances`` every annotation is an
    object, unless its class is the first one (background). What lies in no area is ``config.ignored`` (not annotated),
    if that is set, else background. Later annotations lie over earlier ones.

    Raises
    ------
    SlideError
        If an annotation reaches beyond the image, or is of no class.
    """
    annotations = read_annotations(path, memory_mb=memory_mb)
    for annotation in annotations:
        _check_extent(annotation, path, like)
    classes = [_class_of(annotation, config, path) for annotation in annotations]
    drawing = Drawing(
        shape=like.shape,
        step=slide_step(like),
        areas=[annotation.area for annotation in annotations],
        values=_values(classes, config),
        outside=_background(config) if config.ignored is None else config.ignored,
    )
    return Slide(path=path, levels=(drawing,), file_shape=like.shape, pixel_size_um=like.pixel_size_um)


def _values(classes: list[int], config: LabelConfig) -> list[int]:
    if config.kind == "classes":
        return [(config.values or range(len(config.classes)))[index] for index in classes]
    ids = (number for number in range(1, len(classes) + 2) if number != config.ignored)
    return [next(ids) if index else 0 for index in classes]


def _background(config: LabelConfig) -> int:
    return config.values[0] if config.kind == "classes" and config.values else 0


def _class_of(annotation: Annotation, config: LabelConfig, path: Path) -> int:
    """Return the class by its name, else by the group of an ImageJ ROI; the second one if there is no other."""
    where, allowed = f"{path}: annotation {annotation.number}", config.classes
    if config.kind == "instances":
        allowed = allowed[:2]
    if annotation.name in allowed:
        return allowed.index(annotation.name)
    if annotation.name and path.suffix.lower() == ".geojson":  # the name of an ROI may be anything
        raise SlideError(f"{where} is of class {annotation.name!r}, not of {_list(allowed)}; rename it, or add a class")
    if annotation.group >= len(allowed):
        raise SlideError(f"{where} is of group {annotation.group}, there are {len(allowed)} classes, counted from 0")
    if annotation.group:
        return annotation.group
    if len(allowed) == 2:
        return 1
    raise SlideError(f"{where} has no class; give it one of {_list(allowed)}")


def _list(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _check_extent(annotation: Annotation, path: Path, like: Slide) -> None:
    left, top, right, bottom = annotation.area.bounds
    rows, columns = like.file_shape
    if min(left, top) < -_BEYOND_PX or right > columns + _BEYOND_PX or bottom > rows + _BEYOND_PX:
        raise SlideError(
            f"{path}: annotation {annotation.number} spans rows {top:.0f} to {bottom:.0f} and columns {left:.0f} to "
            f"{right:.0f}, its image has {rows} and {columns} ({like.path}); annotate that image, at full resolution"
        )
