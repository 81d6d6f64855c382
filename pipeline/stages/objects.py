"""List the objects of one mask: a row of a table and a polygon each."""

from __future__ import annotations

import json
import math
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError
from pipeline.base.files import provenance, replacing, sha256
from pipeline.base.palette import class_rgb
from pipeline.masks.instances import find_objects
from pipeline.masks.mask_file import AGAIN, Mask, open_mask
from pipeline.masks.object_table import ObjectTable, Ring, measure_objects, trace_objects
from pipeline.settings.stages import ObjectsConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.slide import Slide, open_slide, slide_step

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/slidemill/slidemill")

Columns = dict[str, NDArray[Any]]


def run(
    *,
    sample: str,
    model: str,
    slide: Path,
    mask: Path,
    table: Path,
    annotations: Path,
    memory_mb: int,
    config: ObjectsConfig,
) -> None:
    """Write the objects of one mask; docs/contracts.md describes columns and properties.

    Parameters
    ----------
    sample, model : str
        Id of the sample and name of the network, from which the ids of the polygons follow.
    slide : Path
        Slide whose intensities are measured.
    mask : Path
        Mask of the slide (OME-TIFF).
    table : Path
        CSV to write, an object a row.
    annotations : Path
        GeoJSON to write, a polygon an object, as QuPath reads it.
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : ObjectsConfig
        Classes and how the slide is read.
    """
    channels = list(dict.fromkeys(config.image.channels))
    view = config.image.model_copy(update={"channels": channels})
    with (
        open_slide(slide, memory_mb=memory_mb, view=view) as image,
        open_mask(mask, memory_mb=memory_mb) as labels,
        replacing(table) as table_file,
        replacing(annotations) as annotations_file,
        tempfile.TemporaryDirectory(dir=table_file.parent) as scratch,
    ):
        instances = labels.instances
        if instances is None:
            instances, _ = find_objects(labels.classes, scratch=Path(scratch))
        objects = _measure(image, labels, instances)
        if (highest := int(objects.classes.max(initial=0))) >= len(config.classes):
            raise SlideError(
                f"{mask}: class {highest} (counted from 0) is in the mask, {len(config.classes)} classes are "
                f"configured; {AGAIN}"
            )
        columns = _columns(objects, config.classes, channels, labels.slide.pixel_size_um)
        pd.DataFrame(columns).to_csv(table_file, index=False)
        features = (
            _feature(f"{model}/{sample}", columns, index, rings, class_rgb(int(objects.classes[index])))
            for index, rings in _in_file(trace_objects(instances, objects), slide_step(image))
        )
        _write_features(annotations_file, features, provenance("objects", config, mask=sha256(mask)))


def _measure(image: Slide, mask: Mask, instances: Array) -> ObjectTable:
    path, shape = mask.slide.path, mask.slide.shape
    if not shape == instances.shape == image.shape or mask.slide.channels != 1 or instances.dtype != np.uint32:
        raise SlideError(
            f"{path}: the mask has {shape} px in {mask.slide.channels} channels and object ids of "
            f"{instances.shape} px {instances.dtype}, its slide {image.path} has {image.shape} px; {AGAIN}"
        )
    try:
        return measure_objects(instances, mask.classes, image.read, channels=image.channels)
    except ValueError as error:
        raise SlideError(f"{path}: {error}; {AGAIN}") from error


def _in_file(
    outlines: Iterable[tuple[int, list[Ring]]], step: tuple[float, float]
) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Yield outlines (x, y) in pixels of the finest level of the file, which is where other programs draw them."""
    rows, columns = step
    for index, rings in outlines:
        yield index, [ring if rows == columns == 1 else ring * (columns, rows) for ring in rings]


def _columns(
    objects: ObjectTable, classes: list[str], channels: list[int | str], pixel_size_um: PixelSize | None
) -> Columns:
    """Return the columns of the table."""
    pixel_um2 = math.nan if pixel_size_um is None else pixel_size_um[0] * pixel_size_um[1]
    return {
        "id": objects.ids,
        "class": np.array(classes, dtype=object)[objects.classes],
        "area_px": objects.areas_px,
        "area_um2": objects.areas_px * pixel_um2,
        **{f"centroid_{axis}_px": objects.centroids_px[:, n] for n, axis in enumerate(("row", "column"))},
        **{f"{side}_px": objects.boxes_px[:, n] for n, side in enumerate(("top", "left", "bottom", "right"))},
        "eccentricity": objects.eccentricities,
        **{f"mean_intensity_{channel}": objects.intensities[:, n] for n, channel in enumerate(channels)},
    }


def _feature(
    name: str, columns: Columns, index: int, rings: list[NDArray[Any]], rgb: tuple[int, int, int]
) -> dict[str, Any]:
    """Return one object as QuPath reads and writes it, since version 0.4."""
    number = columns["id"].item(index)
    values = {shown: columns[name].item(index) for name in columns if (shown := _measurement(name))}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{name}/{number}")),
        "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]},
        "properties": {
            "objectType": "detection",
            "name": str(number),
            "classification": {"name": columns["class"].item(index), "color": rgb},
            "measurements": {name: value for name, value in values.items() if math.isfinite(value)},
        },
    }


def _measurement(column: str) -> str | None:
    """Return the name of a column among the measurements in QuPath, None for those that it has otherwise."""
    if column.startswith("mean_intensity_"):
        return column.replace("mean_intensity_", "Mean intensity, channel ")
    return {"area_px": "Area px", "area_um2": "Area µm^2", "eccentricity": "Eccentricity"}.get(column)


def _write_features(path: Path, features: Iterable[dict[str, Any]], origin: dict[str, Any]) -> None:
    """Write a FeatureCollection, a feature a line, as they come."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"type":"FeatureCollection","provenance":{_json(origin)},"features":[')
        separator = "\n"
        for feature in features:
            file.write(separator + _json(feature))
            separator = ",\n"
        file.write("\n]}\n")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
