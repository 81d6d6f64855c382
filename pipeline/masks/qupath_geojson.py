"""List the objects of a mask for other programs: the columns of a table, and outlines for QuPath (GeoJSON).

Measurements and outlines go in; the columns are those of docs/contracts.md, the features those that QuPath has read and
written since version 0.4.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.palette import class_rgb
from pipeline.masks.object_table import ObjectTable, Ring
from pipeline.masks.ome_tiff import NAMESPACE
from pipeline.slides.formats.image import PixelSize

Columns = dict[str, NDArray[Any]]

_MEAN = "mean_intensity_"
_MEASUREMENTS = {"area_px": "Area px", "area_um2": "Area µm^2", "eccentricity": "Eccentricity"}


def columns_of(
    objects: ObjectTable, classes: list[str], channels: list[int | str], pixel_size_um: PixelSize | None
) -> Columns:
    """Return the columns of the table by name; areas in µm² are NaN without a pixel size."""
    pixel_um2 = math.nan if pixel_size_um is None else pixel_size_um[0] * pixel_size_um[1]
    return {
        "id": objects.ids,
        "class": np.array(classes, dtype=object)[objects.classes],
        "area_px": objects.areas_px,
        "area_um2": objects.areas_px * pixel_um2,
        **{f"centroid_{axis}_px": objects.centroids_px[:, n] for n, axis in enumerate(("row", "column"))},
        **{f"{side}_px": objects.boxes_px[:, n] for n, side in enumerate(("top", "left", "bottom", "right"))},
        "eccentricity": objects.eccentricities,
        **{f"{_MEAN}{channel}": objects.intensities[:, n] for n, channel in enumerate(channels)},
    }


def features(
    name: str,
    objects: ObjectTable,
    columns: Columns,
    outlines: Iterable[tuple[int, list[Ring]]],
    step: tuple[float, float],
) -> Iterator[dict[str, Any]]:
    """Yield a GeoJSON feature per object.

    Parameters
    ----------
    name : str
        Of the mask; with the id of an object it gives the UUID of the feature.
    columns : dict
        From :func:`columns_of`.
    outlines : iterable
        Index of an object and its rings, from :func:`pipeline.masks.object_table.trace_objects`.
    step : (row, column)
        How many pixels of the slide file a pixel of the mask is wide: other programs draw on the file.
    """
    shown = {column: _MEASUREMENTS.get(column, "") for column in columns}
    shown |= {column: column.replace(_MEAN, "Mean intensity, channel ") for column in columns if _MEAN in column}
    for index, rings in outlines:
        number = columns["id"].item(index)
        values = {title: columns[column].item(index) for column, title in shown.items() if title}
        in_file = rings if step == (1, 1) else [ring * (step[1], step[0]) for ring in rings]
        colour = class_rgb(int(objects.classes[index]))
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, f"{name}/{number}")),
            "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in in_file]},
            "properties": {
                "objectType": "detection",
                "name": str(number),
                "classification": {"name": columns["class"].item(index), "color": colour},
                "measurements": {title: value for title, value in values.items() if math.isfinite(value)},
            },
        }


def write_features(path: Path, features: Iterable[dict[str, Any]], provenance: dict[str, Any]) -> None:
    """Write a FeatureCollection, one feature per line, as they come."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"type":"FeatureCollection","provenance":{_json(provenance)},"features":[')
        separator = "\n"
        for feature in features:
            file.write(separator + _json(feature))
            separator = ",\n"
        file.write("\n]}\n")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
