"""The part of the configuration about measurements: which groups of them each object has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.section import Positive, Section

Group = Literal["shape", "intensity", "stains", "neighbours"]


class MeasurementsConfig(Section):
    """What is measured of each object beside its class, place, area, eccentricity and mean intensities:
    [docs/measurements.md](../docs/measurements.md) has them all. A change runs `objects` again, and nothing before it.
    """

    groups: list[Group] = Field(
        ["shape", "intensity"],
        description="`shape`: perimeter, circularity, solidity, axes, Feret diameters, orientation, extent, holes. "
        "`intensity`: median, standard deviation, minimum, maximum, sum and mean along the edge in each channel. "
        "`stains`: hematoxylin, eosin and DAB as three more channels, on RGB slides of 8 or 16 bits; others are "
        "refused. `neighbours`: distance to the nearest object of each class, number of objects within a radius.",
    )
    neighbour_radius_um: Positive = Field(
        50.0, description="For `neighbours`: the radius in µm between centroids. Needs the pixel size of the slide."
    )
