"""The columns of the table of objects, from all measurements of a slide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.masks.measurements.dictionary import Measurement
from pipeline.masks.measurements.neighbours import count_within, nearest
from pipeline.masks.measurements.pixels import PixelMeasurements
from pipeline.masks.measurements.rings import Rings
from pipeline.masks.object_table import ObjectTable
from pipeline.settings.stage_sections import ObjectsConfig
from pipeline.slides.formats.image import PixelSize, side_of_square

Columns = dict[str, NDArray[Any]]


def columns_of(
    wanted: Sequence[Measurement],
    objects: ObjectTable,
    pixels: PixelMeasurements,
    known: Columns,
    *,
    rings: Mapping[str, Rings],
    config: ObjectsConfig,
    channels: Sequence[int | str],
    pixel_size_um: PixelSize | None,
) -> Columns:
    """Return the columns of the table by name, those that are ``wanted``, in this order.

    Lengths and areas in µm are NaN without a pixel size; lengths that depend on their direction also if pixels are not
    square.

    Parameters
    ----------
    known : dict of (objects,) arrays
        The columns ``regions``, and ``z`` and ``t`` if they are wanted.
    rings : mapping of Rings
        By the name of the compartment.
    channels : sequence of int or str
        Names of the channels of ``pixels``, stains excepted.
    """
    classes = config.classes
    found = known | _places(objects, classes, pixel_size_um) | _shapes(objects, pixels, pixel_size_um)
    names = config.measurements.measured(channels)
    for statistic, values in pixels.intensities.items():
        found |= {f"{statistic}_intensity_{name}": own for name, own in zip(names, values, strict=True)}
    if "neighbours" in config.measurements.groups:
        found |= dict(_neighbours(objects, classes, pixel_size_um, config.measurements.neighbour_radius_um))
    found |= dict(_compartments(objects, pixels, rings, config, names, pixel_size_um))
    for channel, threshold in config.measurements.positive.items():
        found[f"positive_{channel}"] = _positive(found, channel, threshold, config.measurements.score_compartment)
    return {one.column: found[one.column] for one in wanted}


def _positive(found: Columns, channel: str, threshold: float, places: Mapping[str, str]) -> NDArray[Any]:
    """Return 1 for positive objects and 0 for others; NaN for those without the compartment that decides."""
    if channel not in places:
        return (found[f"mean_intensity_{channel}"] > threshold).astype(np.int64)
    means = found[f"{places[channel]}_mean_intensity_{channel}"]
    return np.where(np.isnan(means), np.nan, means > threshold)


def _pixel_um2(pixel_size_um: PixelSize | None) -> float:
    return math.nan if pixel_size_um is None else math.prod(pixel_size_um)


def _places(objects: ObjectTable, classes: Sequence[str], pixel_size_um: PixelSize | None) -> Columns:
    return {
        "id": objects.ids,
        "class": np.array(classes, dtype=object)[objects.classes],
        "area_px": objects.areas_px,
        "area_um2": objects.areas_px * _pixel_um2(pixel_size_um),
        **{f"centroid_{axis}_px": objects.centroids_px[:, n] for n, axis in enumerate(("row", "column"))},
        **{f"{side}_px": objects.boxes_px[:, n] for n, side in enumerate(("top", "left", "bottom", "right"))},
        "eccentricity": objects.eccentricities,
    }


def _shapes(objects: ObjectTable, pixels: PixelMeasurements, pixel_size_um: PixelSize | None) -> Columns:
    pixel_um = (pixel_size_um and side_of_square(pixel_size_um)) or math.nan
    areas, (top, left, bottom, right) = objects.areas_px, objects.boxes_px.T
    lengths = {
        "perimeter": pixels.perimeters_px,
        "major_axis": objects.axes_px[:, 0],
        "minor_axis": objects.axes_px[:, 1],
        "max_feret": pixels.hulls[1],
        "min_feret": pixels.hulls[2],
    }
    return {
        **{f"{name}_px": length for name, length in lengths.items()},
        **{f"{name}_um": length * pixel_um for name, length in lengths.items()},
        "circularity": 4 * np.pi * areas / pixels.perimeters_px**2,
        "solidity": areas / pixels.hulls[0],
        "extent": areas / ((bottom - top) * (right - left)),
        "orientation_deg": objects.orientations_deg,
        "holes": pixels.holes,
    }


def _compartments(
    objects: ObjectTable,
    pixels: PixelMeasurements,
    rings: Mapping[str, Rings],
    config: ObjectsConfig,
    names: Sequence[str],
    pixel_size_um: PixelSize | None,
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield area and mean intensities of rings, and of objects with their rings; NaN for objects of other classes."""
    integrated = pixels.intensities["integrated"]
    for compartment, ring in rings.items():
        of_class = config.classes.index(config.measurements.compartments[compartment].nucleus)
        ring_px = np.where(objects.classes == of_class, ring.areas_px, np.nan)
        parts = {"_ring": (ring_px, ring.sums), "": (ring_px + objects.areas_px, ring.sums + integrated)}
        for part, (area_px, sums) in parts.items():
            yield f"{compartment}{part}_area_um2", area_px * _pixel_um2(pixel_size_um)
            with np.errstate(invalid="ignore"):  # 0 / 0, of a ring without pixels
                means = sums / area_px
            yield from zip((f"{compartment}{part}_mean_intensity_{name}" for name in names), means, strict=True)


def _neighbours(
    objects: ObjectTable, classes: Sequence[str], pixel_size_um: PixelSize | None, radius_um: float
) -> Iterator[tuple[str, NDArray[Any]]]:
    unknown = np.full(len(objects.ids), np.nan)
    places_um = None if pixel_size_um is None else objects.centroids_px * pixel_size_um
    for number, name in enumerate(classes[1:], start=1):
        yield f"nearest_{name}_px", nearest(objects.centroids_px, objects.classes, number)
        yield f"nearest_{name}_um", unknown if places_um is None else nearest(places_um, objects.classes, number)
    yield "neighbours", unknown if places_um is None else count_within(places_um, radius_um)
