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
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from pipeline.base.errors import SlideError, reason_of
from pipeline.project.drop.image_files import ANNOTATION_SUFFIXES
from pipeline.slides.planes import Choice

_PARSED_PER_BYTE = 10  # memory that a parsed file takes, relative to its size
_KEPT = 32  # parsed files
_OVAL_POINTS = 361  # an oval 1,000 px across is a fiftieth of a px off the true one
_POLYGONAL = ("Polygon", "MultiPolygon")
_NO_AREA = {ROI_TYPE.LINE, ROI_TYPE.FREELINE, ROI_TYPE.POLYLINE, ROI_TYPE.ANGLE, ROI_TYPE.POINT, ROI_TYPE.NOROI}
_NO_OUTLINE = {ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE}


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One drawn area.

    Attributes
    ----------
    number : int
        Its place in the file, counted from 1.
    area : shapely Polygon or MultiPolygon
        Not empty; it may cross itself. What is inside is told by the even-odd rule.
    name : str or None
        Of its class: QuPath's classification, or the name of an ImageJ ROI without its number (``nucleus-2``).
    title : str or None
        Its own name: that of the QuPath object, or the whole name of an ImageJ ROI.
    group : int
        Of an ImageJ ROI; 0 = none.
    z, t : int or None
        The plane and time point that it was drawn on, counted from 0; None: all of them.
    slice : int or None
        Instead of them: the number of a plane in the order of ImageJ (channel, z, time), counted from 0.
    """

    number: int
    area: BaseGeometry
    name: str | None = None
    title: str | None = None
    group: int = 0
    z: int | None = None
    t: int | None = None
    slice: int | None = None

    def place(self, channels: int, planes: int) -> tuple[int | None, int | None]:
        """Return its z and t in a stack of so many channels and planes."""
        if self.slice is None:
            return self.z, self.t
        return self.slice // channels % planes, self.slice // (channels * planes)


def is_annotation(path: Path) -> bool:
    """Return whether a file holds outlines instead of pixels, by its name."""
    return path.suffix.lower() in ANNOTATION_SUFFIXES


class Outlines(NamedTuple):
    """The areas of a file in its order, and warnings about what was passed over."""

    areas: list[Annotation]
    warnings: tuple[str, ...]


def read_annotations(path: Path, *, memory_mb: int, choice: Choice | None = None) -> Outlines:
    """Return the areas that were drawn on the planes that are read; those without a plane are on all planes.

    Where the image has a single plane, its outlines are on one plane, whatever number it had in the stack. A collection
    without features has no areas.

    Parameters
    ----------
    choice : Choice or None
        The planes that are read; None: all.

    Raises
    ------
    SlideError
        If it cannot be read, takes more than ``memory_mb``, has no outlines, holds points or lines, or has outlines on
        planes that the image lacks.
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
        if choice is None:
            return _parsed(path, state.st_mtime_ns)
        lengths = tuple(choice.image.length(axis) for axis in "CZT")
        return _on_planes(path, state.st_mtime_ns, lengths, tuple(choice.z), choice.t)
    except SlideError:
        raise
    except Exception as error:  # parsers of damaged files raise anything
        raise SlideError(f"{path}: cannot be read: {reason_of(error)}; export it again") from error


@lru_cache(maxsize=_KEPT)
def _on_planes(path: Path, changed: int, lengths_czt: tuple[int, ...], z: tuple[int, ...], t: int) -> Outlines:
    outlines, lengths = _parsed(path, changed), dict(zip("CZT", lengths_czt, strict=True))
    places = [one.place(lengths["C"], lengths["Z"]) for one in outlines.areas]
    wanted = []
    for axis, used, drawn in zip("ZT", (set(z), {t}), zip(*places, strict=True), strict=False):
        stated = set(drawn) - {None}
        if (lengths[axis] > 1 and max(stated, default=0) >= lengths[axis]) or lengths[axis] == 1 < len(stated):
            raise SlideError(
                f"{path}: outlines on the planes {', '.join(map(str, sorted(stated)))} (from 0) along axis {axis}, "
                f"the image has {lengths[axis]}; keep those of its plane, or use the stack that they were drawn on"
            )
        wanted.append((stated if lengths[axis] == 1 else used) | {None})
    kept = [
        one
        for one, place in zip(outlines.areas, places, strict=True)
        if all(at in planes for at, planes in zip(place, wanted, strict=True))
    ]
    others, everywhere = len(places) - len(kept), places.count((None, None))
    if not others and not (everywhere and any(planes - {0, None} for planes in wanted)):
        return outlines
    warning = f"{others} of {len(places)} outlines are on other planes, and not drawn" if others else ""
    if everywhere:  # QuPath leaves out the plane of those on the first
        warning += f"{'; ' if others else ''}those without a plane ({everywhere}) are drawn on every plane"
    return Outlines(kept, (*outlines.warnings, warning))


@lru_cache(maxsize=_KEPT)
def _parsed(path: Path, _changed: int) -> Outlines:
    found = list(_read(path))
    passed_over = tuple(one for one in found if isinstance(one, str))
    return Outlines([one for one in found if isinstance(one, Annotation)], passed_over)


def _read(path: Path) -> Iterator[Annotation | str]:
    """Return the areas of a file, or why one is passed over; a .zip holds ROIs of ImageJ, or an export of QuPath."""
    if path.suffix.lower() == ".geojson":
        return _geojson(path, path.read_bytes())
    if path.suffix.lower() == ".roi":
        return _imagej(path, [path.read_bytes()])
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not PurePosixPath(name).name.startswith(".")]
        by_suffix = {
            suffix: [archive.read(name) for name in names if name.lower().endswith(suffix)]
            for suffix in (".roi", ".geojson")
        }
    rois, exports = by_suffix[".roi"], by_suffix[".geojson"]
    if rois and not exports:
        return _imagej(path, rois)
    if rois or len(exports) != 1:
        raise ValueError(f"it holds {len(exports)} .geojson and {len(rois)} .roi files, not one .geojson, or only .roi")
    return _geojson(path, exports[0])


def _geojson(path: Path, content: bytes) -> Iterator[Annotation | str]:
    """Yield the features of QuPath: a collection, a list of features, a single one, or a bare geometry.

    Features without a geometry are passed over, and so is the third coordinate of a point.
    """
    found = json.loads(content.decode("utf-8-sig"))
    if isinstance(found, dict):
        found = found["features"] if found.get("type") == "FeatureCollection" else [found]
    for number, feature in enumerate(found, start=1):
        geometry = feature["geometry"] if feature.get("type") == "Feature" or "geometry" in feature else feature
        if geometry is None:
            yield f"annotation {number} has no geometry, and is passed over"
            continue
        if geometry["type"] not in _POLYGONAL:
            raise _no_area(path, number, geometry["type"])
        properties = feature.get("properties") or {}
        classification = properties.get("classification") or {}
        name = classification.get("name") or ": ".join(classification.get("names", [])) or None
        plane = geometry.get("plane") or {}
        z, t = (_index(path, number, plane.get(axis)) for axis in "zt")
        area, title = _checked(path, number, _flat(path, number, geometry)), properties.get("name")
        yield Annotation(number=number, area=area, name=name, title=None if title is None else str(title), z=z, t=t)


def _index(path: Path, number: int, at: Any) -> int | None:
    """Return the number of a plane; None, as for every plane, where there is none or it is negative."""
    if at is None:
        return None
    if not isinstance(at, (int, float)) or not float(at).is_integer():
        raise SlideError(f"{path}: annotation {number} is on the plane {at!r}, not a whole number; export it again")
    return int(at) if at >= 0 else None


def _flat(path: Path, number: int, geometry: dict[str, Any]) -> BaseGeometry:
    """Return a geometry without third coordinates."""
    try:
        return shapely.force_2d(shape(geometry))
    except Exception as error:
        raise SlideError(f"{path}: annotation {number} has coordinates of no polygon; export it again") from error


def _imagej(path: Path, contents: list[bytes]) -> Iterator[Annotation | str]:
    """Yield the ROIs of ImageJ; texts and pictures of its overlays are passed over."""
    for number, content in enumerate(contents, start=1):
        roi = ImagejRoi.frombytes(content)
        if roi.subtype in _NO_OUTLINE:
            yield f"annotation {number} ({roi.subtype.name.lower()}) is no outline, and is passed over"
            continue
        if roi.roitype in _NO_AREA:
            raise _no_area(path, number, roi.roitype.name.lower())
        area = MultiPolygon([Polygon(ring) for ring in _rings(roi)])  # in composites, one within another is a hole
        yield Annotation(
            number=number,
            area=_checked(path, number, area),
            name=re.sub(r"[-_]\d+$", "", roi.name or "") or None,
            title=roi.name or None,
            group=int(roi.group),
            **_place_of(roi),
        )


def _place_of(roi: ImagejRoi) -> dict[str, int | None]:
    """Return the plane of an ROI: its z and t in a hyperstack, else its slice. ImageJ counts from 1; 0 means none."""
    z, t = (at - 1 if at > 0 else None for at in (roi.z_position, roi.t_position))
    is_slice = z is None and t is None and roi.position > 0 and roi.c_position <= 0
    return {"z": z, "t": t, "slice": roi.position - 1 if is_slice else None}


def _rings(roi: ImagejRoi) -> list[NDArray[Any]]:
    """Return the outlines of an ROI as (points, 2) arrays of x and y."""
    if roi.roitype not in (ROI_TYPE.OVAL, ROI_TYPE.RECT) or roi.multi_coordinates is not None:
        return [ring for ring in roi.coordinates(multi=True) if len(ring) >= 3]
    left, top, width, height = roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
    if roi.roitype == ROI_TYPE.RECT:
        return [_rectangle(left, top, width, height, corner=roi.rounded_rect_arc_size)]
    angle = np.linspace(0, 2 * np.pi, _OVAL_POINTS)
    return [np.stack([left + width * (1 + np.cos(angle)) / 2, top + height * (1 + np.sin(angle)) / 2], axis=1)]


def _rectangle(left: float, top: float, width: float, height: float, *, corner: float) -> NDArray[Any]:
    """Return the outline of a rectangle; its corners are quarters of an ellipse with ``corner`` as both diameters.

    A diameter is at most the side, as ImageJ draws it.
    """
    across, down = min(corner, width) / 2, min(corner, height) / 2
    angles = np.linspace(0, np.pi / 2, _OVAL_POINTS // 4 if corner > 0 else 1)
    centres = [(left + width - across, top + height - down), (left + across, top + height - down)]
    centres += [(left + across, top + down), (left + width - across, top + down)]
    quarters = [
        np.stack([x + across * np.cos(angles + turn), y + down * np.sin(angles + turn)], axis=1)
        for (x, y), turn in zip(centres, np.pi / 2 * np.arange(4), strict=True)
    ]
    return np.concatenate([*quarters, quarters[0][:1]])


def _checked(path: Path, number: int, area: BaseGeometry) -> BaseGeometry:
    """Return an area that can be drawn. It may cross itself: what is inside is told by the even-odd rule.

    A part within another is a hole, as ImageJ saves composites.
    """
    if not np.isfinite(shapely.get_coordinates(area)).all() or not area.convex_hull.area > 0:
        raise SlideError(f"{path}: annotation {number} has no area; remove it")
    parts = shapely.get_parts(area)
    if len(parts) > 1 and shapely.STRtree(parts).query(parts, predicate="overlaps").size:
        raise SlideError(
            f"{path}: annotation {number} has parts that overlap, and it is not clear what is in them; make each an "
            "annotation of its own"
        )
    return area


def _no_area(path: Path, number: int, kind: str) -> SlideError:
    return SlideError(f"{path}: annotation {number} is a {kind}, only areas can be used; remove it")
