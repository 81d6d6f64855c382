"""The part of the configuration about measurements: which groups of them each object has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.settings.section import ClassName, Name, Positive, Section

Group = Literal["shape", "intensity", "stains", "neighbours"]
STAINS = ("Hematoxylin", "Eosin", "DAB")
_WIDEST_UM = 100.0
_OF_COLUMNS = ("edge", "positive")  # the names of other columns begin with them


def _check_name(name: str) -> str:
    if name in _OF_COLUMNS:
        raise ValueError(f"a compartment cannot be named {name!r}, as other columns are; choose another name")
    return name


def _text_of_numbers(values: Any) -> Any:
    """Return a mapping whose keys may be the numbers of channels, as YAML reads them, with text as keys."""
    if not isinstance(values, dict):
        return values
    return {str(key) if type(key) is int else key: value for key, value in values.items()}


CompartmentName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=60), AfterValidator(_check_name)]


class CompartmentConfig(Section):
    """What surrounds each object of a class."""

    nucleus: ClassName = Field(description="Class of the objects that it surrounds.")
    expand_um: Positive = Field(
        le=_WIDEST_UM,
        description="Width in µm of the ring around each object: pixels of no object that are at most so far from it, "
        "and nearer to it than to any other object of whatever class.",
    )


class MeasurementsConfig(Section):
    """What is measured of each object beside its class, place, area, eccentricity and mean intensities:
    [docs/measurements.md](../docs/measurements.md) has them all. A change runs `objects` again, and nothing before it.
    """

    younger: ClassVar[frozenset[str]] = frozenset({"positive", "score_compartment", "compartments"})

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
    positive: Annotated[dict[Name, Annotated[float, Field(allow_inf_nan=False)]], BeforeValidator(_text_of_numbers)] = (
        Field(
            {},
            description="Thresholds by channel or stain, in its units, as `{Ki67: 900}` or `{DAB: 0.05}`: an object is "
            "positive if its mean intensity is above. `regions.csv` has number and share of those.",
        )
    )
    score_compartment: Annotated[dict[Name, Name], BeforeValidator(_text_of_numbers)] = Field(
        {},
        description="Where `positive` measures a channel or stain, if not in the object itself: a name in "
        "`compartments` (object and ring together), or that of its ring, as `{Her2: cell_ring}`. Objects without the "
        "compartment are neither positive nor negative.",
    )
    compartments: dict[CompartmentName, CompartmentConfig] = Field(
        {},
        description="Rings around objects, by a name for object and ring together, as "
        "`{cell: {nucleus: nucleus, expand_um: 5}}`: area and mean intensities of the ring, and of both. Needs the "
        "pixel size of the slide.",
    )

    def measured(self, channels: Sequence[int | str]) -> list[str]:
        """Return the names of what has intensities: the channels that the network sees, then stains."""
        stains = STAINS if "stains" in self.groups else ()
        return [*map(str, channels), *stains]

    def unknown_compartment(self) -> str:
        """Return what is wrong with ``score_compartment``, in one line; empty: nothing."""
        places = [f"{name}{part}" for name in self.compartments for part in ("", "_ring")]
        for channel, place in self.score_compartment.items():
            if channel not in self.positive:
                return f"measurements.score_compartment: {channel!r} has no threshold in measurements.positive"
            if place not in places:
                known = ", ".join(places) or "none"
                return f"measurements.score_compartment.{channel}: no compartment {place!r}; there are {known}"
        return ""

    def unknown_channel(self, channels: Sequence[int | str]) -> str:
        """Return what is wrong with ``positive`` for a slide with these channels, in one line; empty: nothing."""
        known = self.measured(channels)
        for name in self.positive:
            if name not in known:
                stains = "; stains need `stains` in measurements.groups" if name in STAINS else ""
                return f"measurements.positive: no channel {name!r}; measured are {', '.join(known)}{stains}"
        return ""
