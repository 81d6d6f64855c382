"""Draw annotated areas as a label image on the grid of their image, each region when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
import skimage.draw
from numpy.typing import NDArray
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from pipeline.base.arrays import LazyArray
from pipeline.base.errors import SlideError
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.outlines import Annotation, read_annotations
from pipeline.slides.slide import Slide

_BEYOND_PX = 2.0  # how far an outline may reach beyond its image, as a brush at the border does
_LISTED = 8


def draw_areas(
    shape: tuple[int, int],
    areas: Sequence[BaseGeometry],
    values: Sequence[int],
    *,
    outside: int,
    step: tuple[float, float] = (1.0, 1.0),
) -> LazyArray:
    """Return areas as a (1, rows, columns) int32 array: a pixel has the value of the last area that holds its centre.

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
    tree = STRtree(areas)

    def read(channels: slice, rows: slice, columns: slice) -> NDArray[np.int32]:
        pixels = np.full((rows.stop - rows.start, columns.stop - columns.start), outside, dtype=np.int32)
        # One pixel more on every side, so that cutting draws no outline within.
        top, left = (rows.start - 1) * step[0], (columns.start - 1) * step[1]
        bottom, right = (rows.stop + 1) * step[0], (columns.stop + 1) * step[1]
        for number in sorted(tree.query(shapely.box(left, top, right, bottom))):
            for part in shapely.get_parts(shapely.clip_by_rect(areas[number], left, top, right, bottom)):
                if part.geom_type == "Polygon" and not part.is_empty:
                    rings = [np.asarray(ring.coords)[:, ::-1] / step for ring in (part.exterior, *part.interiors)]
                    _fill(pixels, [ring - 0.5 - (rows.start, columns.start) for ring in rings], values[number])
        return pixels[None][channels]

    return LazyArray((1, *shape), np.dtype(np.int32), read)


def _fill(pixels: NDArray[np.int32], rings: list[NDArray[np.float64]], value: int) -> None:
    """Set the pixels whose centres are in the first ring (row, column) and not in the others, its holes."""
    first = np.maximum(np.floor(rings[0].min(axis=0)), 0).astype(int)
    last = np.minimum(np.ceil(rings[0].max(axis=0)) + 1, pixels.shape).astype(int)
    if (last <= first).any():
        return
    inside = np.zeros(last - first, dtype=bool)
    for number, ring in enumerate(rings):
        inside[skimage.draw.polygon(*(ring - first).T, shape=inside.shape)] = number == 0
    pixels[first[0] : last[0], first[1] : last[1]][inside] = value


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
    annotations = read_annotations(path, memory_mb=memory_mb)
    for annotation in annotations:
        _check_extent(annotation, path, like)
    classes = [_class_of(annotation, config, path) for annotation in annotations]
    background = config.values[0] if config.kind == "classes" and config.values else 0
    drawing = draw_areas(
        like.shape,
        [annotation.area for annotation in annotations],
        _values(classes, config),
        outside=background if config.ignored is None else config.ignored,
        step=like.step,
    )
    return Slide(path=path, levels=(drawing,), file_shape=like.shape, pixel_size_um=like.pixel_size_um)


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
    if annotation.name in allowed:
        return allowed.index(annotation.name)
    if annotation.name and path.suffix.lower() == ".geojson":  # the name of an ROI may be anything
        raise SlideError(f"{where} has class {annotation.name!r}, allowed: {_list(allowed)}; rename it, or add a class")
    if annotation.group >= len(allowed):
        raise SlideError(
            f"{where} has group {annotation.group}, there are {len(allowed)} classes, counted from 0; change its group"
        )
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
            f"{right:.0f}, its image has {rows} rows and {columns} columns ({like.path}); annotate that image, unscaled"
        )
