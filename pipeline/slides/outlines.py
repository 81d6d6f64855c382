"""Read areas that were outlined in QuPath (GeoJSON) or ImageJ (.roi, and sets of them in .zip).

A path goes in, polygons in pixels of the image file come out: x is the column, y the row, and the first pixel reaches
from 0 to 1, as in both programs.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi
from shapely.geometry import Polygon, shape
from shapely.geometry.base import BaseGeometry

from pipeline.base.errors import SlideError
from pipeline.project.image_files import ANNOTATION_SUFFIXES

_PARSED_PER_BYTE = 10  # memory that a parsed file takes, relative to its size
_KEPT = 32  # parsed files
_OVAL_POINTS = 361  # an oval 1,000 px across is a fiftieth of a px off the true one
_POLYGONAL = ("Polygon", "MultiPolygon")
_NO_AREA = {ROI_TYPE.LINE, ROI_TYPE.FREELINE, ROI_TYPE.POLYLINE, ROI_TYPE.ANGLE, ROI_TYPE.POINT, ROI_TYPE.NOROI}


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One drawn area.

    Attributes
    ----------
    number : int
        Its place in the file, counted from 1.
    area : shapely Polygon or MultiPolygon
        Valid and not empty.
    name : str or None
        Of its class: QuPath's classification, or the name of an ImageJ ROI without its number (``nucleus-2``).
    group : int
        Of an ImageJ ROI; 0 = none.
    """

    number: int
    area: BaseGeometry
    name: str | None = None
    group: int = 0


def is_annotation(path: Path) -> bool:
    """Return whether a file holds outlines instead of pixels, by its name."""
    return path.suffix.lower() in ANNOTATION_SUFFIXES


def read_annotations(path: Path, *, memory_mb: int) -> list[Annotation]:
    """Return the areas of a file in its order.

    Raises
    ------
    SlideError
        If it cannot be read, takes more than ``memory_mb``, is empty, or holds points or lines.
    """
    try:
        state = path.stat()
        size = state.st_size
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        if size * _PARSED_PER_BYTE > memory_mb * 10**6:
            raise SlideError(
                f"{path}: {size} bytes need more than {memory_mb} MB (tiling.memory_mb); raise it, or split the file"
            )
        annotations = _parsed(path, state.st_mtime_ns)
    except SlideError:
        raise
    except Exception as error:  # parsers of damaged files raise anything
        raise SlideError(f"{path}: cannot be read: {error}; export it again") from error
    if not annotations:
        raise SlideError(f"{path}: no annotation in it; draw some, or remove the file and its image")
    return annotations


@lru_cache(maxsize=_KEPT)
def _parsed(path: Path, _changed: int) -> list[Annotation]:
    return list(_geojson(path) if path.suffix.lower() == ".geojson" else _imagej(path))


def _geojson(path: Path) -> Iterator[Annotation]:
    """Yield the features of QuPath: a FeatureCollection, a list of features, or a single one."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        content = content["features"] if content.get("type") == "FeatureCollection" else [content]
    for number, feature in enumerate(content, start=1):
        geometry = feature["geometry"]
        if geometry["type"] not in _POLYGONAL:
            raise _no_area(path, number, geometry["type"])
        classification = (feature.get("properties") or {}).get("classification") or {}
        name = classification.get("name") or ": ".join(classification.get("names", [])) or None
        yield Annotation(number=number, area=_valid(path, number, shape(geometry)), name=name)


def _imagej(path: Path) -> Iterator[Annotation]:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            contents = [archive.read(name) for name in archive.namelist() if name.lower().endswith(".roi")]
    else:
        contents = [path.read_bytes()]
    for number, content in enumerate(contents, start=1):
        roi = ImagejRoi.frombytes(content)
        if roi.roitype in _NO_AREA:
            raise _no_area(path, number, roi.roitype.name.lower())
        area: Any = Polygon()
        for ring in _rings(roi):  # in composites, a ring within another one is a hole
            area = area.symmetric_difference(shapely.make_valid(Polygon(ring)))
        name = re.sub(r"[-_]\d+$", "", roi.name or "") or None
        yield Annotation(number=number, area=_valid(path, number, area), name=name, group=int(roi.group))


def _rings(roi: ImagejRoi) -> list[NDArray[Any]]:
    """Return the outlines of an ROI as (points, 2) arrays of x and y."""
    if roi.roitype not in (ROI_TYPE.OVAL, ROI_TYPE.RECT) or roi.multi_coordinates is not None:
        return [ring for ring in roi.coordinates(multi=True) if len(ring) >= 3]
    left, top, width, height = roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
    if roi.roitype == ROI_TYPE.RECT:
        return [np.array(shapely.box(left, top, left + width, top + height).exterior.coords)]
    angle = np.linspace(0, 2 * np.pi, _OVAL_POINTS)
    return [np.stack([left + width * (1 + np.cos(angle)) / 2, top + height * (1 + np.sin(angle)) / 2], axis=1)]


def _valid(path: Path, number: int, area: Any) -> BaseGeometry:
    """Return the polygons of an area, without self-crossings."""
    made = shapely.make_valid(area)
    parts = [part for part in shapely.get_parts(made) if part.geom_type in _POLYGONAL]
    whole = shapely.union_all(parts)
    if whole.is_empty or not np.isfinite(whole.bounds).all():
        raise SlideError(f"{path}: annotation {number} has no area; remove it")
    return whole


def _no_area(path: Path, number: int, kind: str) -> SlideError:
    return SlideError(f"{path}: annotation {number} is a {kind}, only areas can be learned; remove it")
