"""Outline the tissue of a slide for QuPath: a map of cells goes in, a feature of GeoJSON with its area comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import skimage.measure
from numpy.typing import NDArray

from pipeline.masks.object_table import measure_objects, trace_objects
from pipeline.masks.qupath_geojson import on_plane
from pipeline.slides.slide import Slide

NAME = "tissue"


def tissue_feature(
    cells: NDArray[np.bool_], cell_px: tuple[float, float], slide: Slide, plane: Mapping[str, int]
) -> dict[str, Any]:
    """Return the outlines of cells as one annotation, in pixels of the file; that can be drawn again as it was.

    Parameters
    ----------
    cells : (rows, columns) bool array
        At least one is true. The last ones may reach beyond the slide, where they are clipped.
    cell_px : (float, float)
        Rows and columns of the slide that a cell is wide.
    slide : Slide
        The slide, open.
    plane : mapping of int
        Its ``z`` and ``t`` in a stack whose planes are segmented one by one, else empty.
    """
    numbers = skimage.measure.label(cells, connectivity=1).astype(np.uint32)
    table = measure_objects(numbers, cells.astype(np.uint8))
    wide, ends = np.array(cell_px)[::-1], np.array(slide.shape)[::-1]
    polygons = [
        [(np.minimum(ring * wide, ends) * slide.step[::-1]).tolist() for ring in rings]
        for _, rings in trace_objects(numbers, table)
    ]
    pixels = _pixels(cells, cell_px, slide.shape)
    size = slide.pixel_size_um
    area = {"Area px": pixels} | ({} if size is None else {"Area µm^2": pixels * math.prod(size)})
    return {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": polygons} | on_plane(plane),
        "properties": {"objectType": "annotation", "name": NAME, "measurements": area},
    }


def _pixels(cells: NDArray[np.bool_], cell_px: tuple[float, float], shape: tuple[int, int]) -> int:
    """Return how many pixels of a slide have their centre in a cell."""
    rows, columns = (
        np.bincount(((np.arange(length) + 0.5) / side).astype(np.intp).clip(max=count - 1), minlength=count)
        for length, side, count in zip(shape, cell_px, cells.shape, strict=True)
    )
    return int(rows @ cells @ columns)
