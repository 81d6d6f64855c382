"""List the objects of a mask for QuPath (GeoJSON), and read the list: outlines with class, colour and measurements.

The features are those that QuPath has read and written since version 0.4.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.base.files import NAMESPACE
from pipeline.base.palette import class_rgb

if TYPE_CHECKING:  # `tile` writes tissue, and needs none of these
    from pipeline.masks.measurements.columns import Columns
    from pipeline.masks.measurements.dictionary import Measurement
    from pipeline.masks.object_table import ObjectTable, Ring


def features(
    name: str,
    objects: ObjectTable,
    columns: Columns,
    listed: Iterable[Measurement],
    outlines: Iterable[tuple[int, list[Ring]]],
    step: tuple[float, float],
    plane: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    """Yield a GeoJSON feature per object.

    Parameters
    ----------
    name : str
        Of the mask; with the id of an object it gives the UUID of the feature.
    columns : dict
        From :func:`pipeline.masks.measurements.columns.columns_of`.
    listed : iterable
        What the columns are; those with a title are measurements in QuPath.
    outlines : iterable
        Index of an object and its rings, from :func:`pipeline.masks.object_table.trace_objects`.
    step : (row, column)
        How many pixels of the slide file a pixel of the mask is wide: other programs draw on the file.
    plane : mapping of int
        Their ``z`` and ``t`` in a stack whose planes are segmented one by one, else empty.
    """
    if not len(objects.ids):
        return
    titles = {one.column: one.title for one in listed if one.title}
    known = {column: title for column, title in titles.items() if np.isfinite(columns[column]).any()}
    measured = np.rec.fromarrays([columns[column] for column in known])
    for index, rings in outlines:
        number = columns["id"].item(index)
        values = zip(known.values(), measured[index].item(), strict=True)
        in_file = rings if step == (1, 1) else [ring * (step[1], step[0]) for ring in rings]
        colour = class_rgb(int(objects.classes[index]))
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, f"{name}/{number}")),
            "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in in_file]} | on_plane(plane),
            "properties": {
                "objectType": "detection",
                "name": str(number),
                "classification": {"name": columns["class"].item(index), "color": colour},
                "measurements": {title: value for title, value in values if math.isfinite(value)},
            },
        }


def on_plane(plane: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the ``z`` and ``t`` of a geometry as QuPath writes them, with all channels (-1); nothing without them."""
    return {"plane": {"c": -1, "z": plane["z"], "t": plane["t"]}} if plane else {}


def write_features(path: Path, features: Iterable[dict[str, Any]], provenance: dict[str, Any]) -> None:
    """Write a FeatureCollection, one feature per line, as they come."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"type":"FeatureCollection","provenance":{_json(provenance)},"features":[')
        separator = "\n"
        for feature in features:
            file.write(separator + _json(feature))
            separator = ",\n"
        file.write("\n]}\n")


def read_features(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the features of a file of :func:`write_features`, one at a time."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith('{"type":"Feature",'):
                yield json.loads(line.rstrip().removesuffix(","))


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
