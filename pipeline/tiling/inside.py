"""Which tiles of a slide lie in its regions, and which part of each is computed.

What is further from all regions than a margin goes through no network. The margin is for the objects that reach beyond
a region: they are cleaned and told apart as on the whole slide, before the mask is cut along the regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from pipeline.tiling.grid import Grid, Region

MARGIN_PX = 64


def parts_inside(polygons: Sequence[BaseGeometry], grid: Grid) -> dict[int, Region]:
    """Return the part of each tile that is computed, by the number of the tile; no others are.

    It is the bounding box of what the tile, with the margin around it, holds of the polygons, plus the margin, in whole
    strides. Every pixel of a polygon is in one, and so is every pixel of the slide at most the margin away.

    Parameters
    ----------
    polygons : sequence of shapely Polygon
        In pixels of the slide as it is read.
    """
    writes = [tile.write for tile in grid.tiles()]
    sides = np.array([[write.left, write.top, write.right, write.bottom] for write in writes], dtype=np.float64)
    grown = sides + np.array([-MARGIN_PX, -MARGIN_PX, MARGIN_PX, MARGIN_PX])
    areas = np.array(polygons, dtype=object)
    tiles, held = shapely.STRtree(areas).query(shapely.box(*grown.T), predicate="intersects")
    pieces = shapely.intersection(areas[held], shapely.box(*grown[tiles].T))
    boxes = np.full((len(writes), 4), np.nan)
    for ends, columns in ((np.fmin, slice(0, 2)), (np.fmax, slice(2, 4))):
        ends.at(boxes[:, columns], tiles, shapely.bounds(pieces)[:, columns])
    parts = {int(number): _part(writes[number], boxes[number], grid.stride_px) for number in np.unique(tiles)}
    return {number: part for number, part in parts.items() if min(part.shape) > 0}  # others end where the margin does


def _part(write: Region, box: NDArray[np.float64], stride: int) -> Region:
    """Return the part of a tile around a box (left, top, right, bottom), from one whole stride to another."""
    left, top, right, bottom = box
    first = [
        start + max(0, math.floor(side - MARGIN_PX) - start) // stride * stride
        for start, side in ((write.top, top), (write.left, left))
    ]
    last = [
        min(stop, start - (start - math.ceil(side + MARGIN_PX)) // stride * stride)
        for start, stop, side in ((write.top, write.bottom, bottom), (write.left, write.right, right))
    ]
    return Region(top=first[0], left=first[1], bottom=last[0], right=last[1])
