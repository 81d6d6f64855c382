"""Draw annotated areas as a label image on the grid of their image, each region when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from pipeline.base.arrays import LazyArray, bands
from pipeline.base.errors import SlideError
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.outlines import Annotation, read_annotations
from pipeline.slides.slide import Slide

_BEYOND_PX = 2.0  # how far an outline may reach beyond its image, as a brush at the border does
_LISTED = 8
_KEPT = 32  # indexed files
_PAINTED_PX = 2**20  # at once


def draw_areas(
    shape: tuple[int, int],
    areas: Sequence[BaseGeometry],
    values: Sequence[int],
    *,
    outside: int,
    step: tuple[float, float] = (1.0, 1.0),
) -> LazyArray:
    """Return areas as a (1, rows, columns) int32 array: a pixel has the value of the last area that holds its centre.

    A centre on an outline belongs to the area to its right, or below it. So areas that share an outline share no pixel,
    and a region is the same whether it is read alone or as part of a larger one.

    Parameters
    ----------
    areas : sequence of shapely Polygon or MultiPolygon
        In pixels of the file.
    values : sequence of int
        Of each area.
    outside : int
        Value of pixels in no area.
    step : (row, column)
        How many pixels of the file a pixel is wide.
    """
    shapes, numbers = np.array(areas, dtype=object), np.array(values, dtype=np.int32)
    tree = STRtree(shapes)

    def read(channels: slice, rows: slice, columns: slice) -> NDArray[np.int32]:
        pixels = np.full((rows.stop - rows.start, columns.stop - columns.start), outside, dtype=np.int32)
        corners = (columns.start * step[1], rows.start * step[0], columns.stop * step[1], rows.stop * step[0])
        found = np.sort(tree.query(shapely.box(*corners)))
        area, row, first, last = _spans(shapes[found], rows, columns, step)
        at_once = max(1, _PAINTED_PX // pixels.shape[1])
        for part in bands(len(row), at_once):  # in the order of the areas, so that later ones cover earlier ones
            lengths = last[part] - first[part]
            start = np.repeat(row[part] * pixels.shape[1] + first[part], lengths)
            pixels.ravel()[start + _count_up(lengths)] = np.repeat(numbers[found][area[part]], lengths)
        return pixels[None][channels]

    return LazyArray((1, *shape), np.dtype(np.int32), read)


def _spans(
    areas: NDArray[np.object_], rows: slice, columns: slice, step: tuple[float, float]
) -> tuple[NDArray[np.intp], ...]:
    """Return the runs of pixels of a region whose centres are in areas, by the even-odd rule in each row.

    Each crossing of an outline with a row of pixel centres is computed from the two ends of one line alone, and in the
    coordinates of the whole image. So it is the same number whatever the region.

    Returns
    -------
    area, row, first, last : (runs,) int arrays
        Index of the area, ascending, row, first column and that after the last one; relative to the region.
    """
    parts, of_part = shapely.get_parts(areas, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    points = points[:, ::-1] / step - 0.5  # (row, column), where pixel centres are integers
    line = np.flatnonzero(of_point[1:] == of_point[:-1])
    down = (points[line, 0] <= points[line + 1, 0])[:, None]
    upper = np.where(down, points[line], points[line + 1])
    lower = np.where(down, points[line + 1], points[line])
    first_row, end_row = (np.ceil(ends[:, 0]).clip(rows.start, rows.stop).astype(np.intp) for ends in (upper, lower))
    counts = end_row - first_row
    index = np.repeat(np.arange(len(line)), counts)
    row = first_row[index] + _count_up(counts)
    (top, left), (bottom, right) = upper[index].T, lower[index].T
    crossing = left + (row - top) / (bottom - top) * (right - left)
    area = of_part[of_ring[of_point[line]]][index]
    order = np.lexsort((crossing, row, area))
    column = np.ceil(crossing[order]).clip(columns.start, columns.stop).astype(np.intp) - columns.start
    ends = column[0::2], column[1::2]  # outlines are closed: a row has an even number of crossings
    kept = ends[0] < ends[1]
    return area[order][0::2][kept], row[order][0::2][kept] - rows.start, ends[0][kept], ends[1][kept]


def _count_up(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return 0, 1, ..., n - 1 for each n of ``counts``, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def draw(path: Path, config: LabelConfig, *, memory_mb: int, like: Slide) -> Slide:
    """Return the areas of an annotation file as a label image on the grid of ``like``.

    It has the values that the configuration gives to a label image. With ``kind: instances`` every annotation is an
    object, unless its class is the first one (background). Pixels in no area are ``config.ignored`` (not annotated) if
    that is set, else background. Later annotations cover earlier ones.

    Raises
    ------
    SlideError
        If an annotation reaches beyond the image, or has no known class.
    """
    outlines = read_annotations(path, memory_mb=memory_mb, choice=like.choice)
    grid = _Grid(like.path, like.file_shape, like.shape, like.step)
    drawing = _drawing(_Same(outlines.areas), path, config.model_dump_json(), grid)
    return Slide(
        path=path,
        levels=(drawing,),
        file_shape=like.shape,
        pixel_size_um=like.pixel_size_um,
        warnings=outlines.warnings,
    )


class _Grid(NamedTuple):
    """The image that areas are drawn for."""

    path: Path
    file_shape: tuple[int, int]
    shape: tuple[int, int]
    step: tuple[float, float]


class _Same:
    """A list that equals itself only: parsed files are cached, and hashing all their polygons would take long."""

    def __init__(self, annotations: list[Annotation]) -> None:
        self.annotations = annotations

    def __hash__(self) -> int:
        return id(self.annotations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.annotations is self.annotations


@lru_cache(maxsize=_KEPT)
def _drawing(outlines: _Same, path: Path, config_json: str, grid: _Grid) -> LazyArray:
    """Check all annotations, and index them; a file is drawn for every region that is read."""
    config, annotations = LabelConfig.model_validate_json(config_json), outlines.annotations
    check_extent(annotations, path, like=grid.path, shape=grid.file_shape)
    classes = [_class_of(annotation, config, path) for annotation in annotations]
    background = config.values[0] if config.kind == "classes" and config.values else 0
    return draw_areas(
        grid.shape,
        [annotation.area for annotation in annotations],
        _values(classes, config),
        outside=background if config.ignored is None else config.ignored,
        step=grid.step,
    )


def _values(classes: list[int], config: LabelConfig) -> list[int]:
    if config.kind == "classes":
        return [(config.values or range(len(config.classes)))[index] for index in classes]
    ids = (number for number in range(1, len(classes) + 2) if number != config.ignored)
    return [next(ids) if index else 0 for index in classes]


def _class_of(annotation: Annotation, config: LabelConfig, path: Path) -> int:
    """Return the class by name, else by the group of an ImageJ ROI, else the second one if there are two."""
    where, allowed = f"{path}: annotation {annotation.number}", config.classes
    if config.kind == "instances":
        allowed = allowed[:2]
    base, *_ = (annotation.name or "").split(": ")  # QuPath derives `Tumor: Positive` from `Tumor`
    if base in allowed:
        return allowed.index(base)
    if annotation.name and path.suffix.lower() == ".geojson":  # the name of an ROI may be anything
        raise SlideError(
            f"{where} has class {annotation.name!r}, allowed: {_list(allowed)}; {_advice(annotation, config)}"
        )
    if annotation.group >= len(allowed):
        raise SlideError(
            f"{where} has group {annotation.group}, there are {len(allowed)} classes, counted from 0; change its group"
        )
    if annotation.group:
        return annotation.group
    if len(allowed) == 2:
        return 1
    raise SlideError(f"{where} has no class; give it one of {_list(allowed)}")


def _advice(annotation: Annotation, config: LabelConfig) -> str:
    same = [name for name in config.classes if name.lower() == (annotation.name or "").lower()]
    if same:
        return f"rename it to {same[0]!r}, upper and lower case differ"
    if config.kind == "instances":
        return f"with training.kind: instances all objects are {config.classes[1]!r}: rename it, there or in `classes`"
    return "rename it, or add a class"


def _list(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def check_extent(annotations: Sequence[Annotation], path: Path, *, like: Path, shape: tuple[int, int]) -> None:
    """Refuse areas that reach beyond their image.

    Parameters
    ----------
    path : Path
        Their file.
    like, shape : Path, (rows, columns)
        Their image.

    Raises
    ------
    SlideError
        If one does; it names the first.
    """
    bounds = shapely.bounds(np.array([annotation.area for annotation in annotations], dtype=object)).reshape(-1, 4)
    rows, columns = shape
    beyond = (bounds[:, :2].min(axis=1) < -_BEYOND_PX) | (bounds[:, 2:] > np.array([columns, rows]) + _BEYOND_PX).any(1)
    if beyond.any():
        first = int(beyond.argmax())
        left, top, right, bottom = bounds[first]
        raise SlideError(
            f"{path}: annotation {annotations[first].number} spans rows {top:.0f} to {bottom:.0f} and columns "
            f"{left:.0f} to {right:.0f}, its image has {rows} rows and {columns} columns ({like}); annotate that "
            "image, unscaled"
        )
