"""Read the regions of a slide: named areas, drawn in QuPath or ImageJ, on the grid of the slide.

A pixel is in a region if its centre is, as :mod:`pipeline.slides.rasterize` draws areas: regions that share an outline
share no pixel, and a pixel may be in several regions or in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import count
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from pipeline.base.arrays import LazyArray
from pipeline.base.errors import SlideError
from pipeline.project.drop.image_files import printable
from pipeline.slides.outlines import Annotation, read_annotations
from pipeline.slides.rasterize import check_extent, draw_areas
from pipeline.slides.slide import Slide

SEPARATOR = ";"  # of the names of regions in a cell of a table
WHOLE = "slide"  # the region of a slide without others


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Regions of a slide.

    Attributes
    ----------
    names : list of str
        All different, in the order of the file.
    areas : list of lists of shapely Polygon
        The polygons of each region, in pixels of the slide as it is read; they may overlap.
    warnings : tuple of str
        What of their file was passed over.
    """

    names: list[str]
    areas: list[list[BaseGeometry]]
    warnings: tuple[str, ...] = ()

    @property
    def polygons(self) -> list[BaseGeometry]:
        """The polygons of all regions."""
        return [polygon for area in self.areas for polygon in area]


def union_of(polygons: Sequence[BaseGeometry], shape: tuple[int, int]) -> LazyArray:
    """Return the pixels of a slide in any of some polygons, as a (1, rows, columns) int32 array of 0 and 1."""
    return draw_areas(shape, polygons, [1] * len(polygons), outside=0)


def read_regions(path: Path, like: Slide, *, memory_mb: int, may_lack: bool = False) -> Regions:
    """Read the regions of a slide.

    A region has the name of its object, else of its class, else a number. All areas of one name are one region.

    Parameters
    ----------
    like : Slide
        The slide, open.
    memory_mb : int
        Most memory that parsing the file may take.
    may_lack : bool
        Whether there may be none, as on some planes of a stack.

    Raises
    ------
    SlideError
        If the file cannot be read or has no area, an area reaches beyond the slide or crosses itself, or a name cannot
        stand in a table.
    """
    annotations, warnings = read_annotations(path, memory_mb=memory_mb, choice=like.choice)
    if not annotations and not may_lack:
        raise SlideError(f"{path}: holds no region for this image; draw one, or remove the file")
    check_extent(annotations, path, like=like.path, shape=like.file_shape)
    areas: dict[str, list[BaseGeometry]] = {}
    for annotation, name in zip(annotations, _names(annotations, path), strict=True):
        on_grid = shapely.transform(_valid(annotation, path), lambda points: points / like.step[::-1])
        areas.setdefault(name, []).extend(shapely.get_parts(on_grid))
    return Regions(names=list(areas), areas=list(areas.values()), warnings=warnings)


def _names(annotations: list[Annotation], path: Path) -> list[str]:
    given = [(one.title or "").strip() or one.name or "" for one in annotations]
    for annotation, name in zip(annotations, given, strict=True):
        if SEPARATOR in name or printable(name) != name:
            raise SlideError(
                f"{path}: annotation {annotation.number} is named {printable(name)!r}; names of regions cannot have "
                f"{SEPARATOR!r}, which separates them in tables, or line ends; rename it"
            )
    used = set(given)
    for index, annotation in enumerate(annotations):
        if not given[index]:
            given[index] = next(text for number in count(annotation.number) if (text := str(number)) not in used)
            used.add(given[index])
    return given


def _valid(annotation: Annotation, path: Path) -> BaseGeometry:
    """Return an area without crossings; of polygons one within the other, as ImageJ saves them, the inner is a hole."""
    parts = shapely.get_parts(annotation.area)
    for part in parts:
        if not part.is_valid:
            named = f" ({annotation.title})" if annotation.title else ""
            place = shapely.is_valid_reason(part).partition("[")[2].rstrip("]")
            raise SlideError(
                f"{path}: annotation {annotation.number}{named} is no region: its outline crosses or touches itself at "
                f"column and row {place}; draw it again"
            )
    return annotation.area if annotation.area.is_valid else reduce(shapely.symmetric_difference, parts)
