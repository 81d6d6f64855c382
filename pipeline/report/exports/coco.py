"""The objects of several samples as COCO: a JSON file of images, categories and outlines, written object by object.

https://cocodataset.org/#format-data; the coordinates are those of the image files: x is the column, and the first pixel
reaches from 0 to 1. COCO has no holes in polygons, so an object with holes is several polygons without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import Polygon, box, shape

from pipeline import __version__
from pipeline.base.files import replacing
from pipeline.masks.qupath_geojson import read_features
from pipeline.project.drop.drop_folder import last_run
from pipeline.project.stage_settings import view_of
from pipeline.report.exports.selection import Selection, refuse_stacks
from pipeline.slides.slide import open_slide


def write_coco(output: Path, chosen: Selection) -> None:
    """Write an image per slide, a category per class but the background, and an annotation per object.

    ``area`` is in px of the image file, ``bbox`` is left, top, width, height; ``object`` is the id in the mask.
    """
    refuse_stacks(chosen, "coco")
    classes = chosen.settings.classes[1:]
    head = {
        "info": {"description": f"objects found by {chosen.outcomes[0].model}, Slidemill {__version__}"},
        "images": list(_images(chosen)),
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
    }
    with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False).removesuffix("}") + ', "annotations": [')
        separator = "\n"
        for annotation in _annotations(chosen, {name: number for number, name in enumerate(classes, start=1)}):
            file.write(separator + json.dumps(annotation, separators=(",", ":")))
            separator = ",\n"
        file.write("\n]}\n")


def _images(chosen: Selection) -> Iterator[dict[str, Any]]:
    samples = last_run().samples
    for number, outcome in enumerate(chosen.outcomes, start=1):
        view = view_of(chosen.settings.image, samples[outcome.sample].row)
        with open_slide(Path(outcome.slide), memory_mb=chosen.settings.tiling.memory_mb, view=view) as slide:
            height, width = slide.file_shape
        yield {"id": number, "file_name": outcome.slide, "width": width, "height": height, "sample": outcome.sample}


def _annotations(chosen: Selection, categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for image, outcome in enumerate(chosen.outcomes, start=1):
        for feature in read_features(Path(str(outcome.annotations))):
            polygon, about = shape(feature["geometry"]), feature["properties"]
            left, top, right, bottom = polygon.bounds
            yield {
                "id": next(numbers),
                "image_id": image,
                "category_id": categories[about["classification"]["name"]],
                "object": int(about["name"]),
                "area": polygon.area,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
                "segmentation": [_flat(part) for part in without_holes(polygon)],
            }


def without_holes(polygon: Polygon) -> list[Polygon]:
    """Return polygons without holes that make up a polygon, which is cut at the left end of each of its holes."""
    if not polygon.interiors:
        return [polygon]
    left, top, right, bottom = polygon.bounds
    cuts = sorted({left, right, *(hole.bounds[0] for hole in polygon.interiors)})
    strips = [polygon & box(start, top, end, bottom) for start, end in pairwise(cuts)]
    parts = [part for strip in strips for part in shapely.get_parts(strip)]
    return [part for part in parts if isinstance(part, Polygon)]


def _flat(polygon: Polygon) -> list[float]:
    """Return x, y, x, y, ... of the corners, the first one once."""
    corners: list[float] = shapely.get_coordinates(polygon.exterior)[:-1].ravel().tolist()
    return corners
