"""Files of outlines as QuPath writes them, and what is in an area by Shapely, point by point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import shapely
import shapely.affinity
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, mapping


def write_outlines(path: Path, areas: dict[str, shapely.Geometry] | list[tuple[str | None, shapely.Geometry]]) -> Path:
    """Write a collection of annotations, each with its name; None: without."""
    named = areas.items() if isinstance(areas, dict) else areas
    features = [
        {
            "type": "Feature",
            "geometry": mapping(area) if isinstance(area, shapely.Geometry) else area,
            "properties": {"objectType": "annotation"} | ({} if name is None else {"name": name}),
        }
        for name, area in named
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def centres_in(area: shapely.Geometry, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre an area holds; none may lie on its outline."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return shapely.contains_xy(area, columns, rows)


@st.composite
def areas(draw, shape=(60, 80), most=4):
    """Areas with holes and of several polygons, which may overlap; no centre of a pixel lies on an outline."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [_random_area(generator, shape) for _ in range(draw(st.integers(1, most)))]


def _random_area(generator, shape):
    parts = [_random_polygon(generator, shape) for _ in range(generator.integers(1, 4))]
    whole = shapely.union_all(parts)
    hole = _random_polygon(generator, shape)
    cut = shapely.difference(whole, shapely.affinity.scale(hole, 0.5, 0.5))
    return cut if isinstance(cut, Polygon | MultiPolygon) and cut.area > 0 else whole


def _random_polygon(generator, shape):
    """The hull of a few points around a place, within the image."""
    rows, columns = shape
    points = generator.uniform(0, (columns, rows)) + generator.normal(0, 10, (generator.integers(3, 12), 2))
    hull = shapely.MultiPoint(np.clip(points, 0, (columns, rows))).convex_hull.buffer(0.3)
    return hull & shapely.box(0, 0, columns, rows)
