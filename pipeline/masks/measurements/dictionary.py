"""The data dictionary of objects: what each column of their table is, and its names in QuPath and CellProfiler.

docs/measurements.md and `columns.csv` are written from it, and the stage `objects` writes the columns that it lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pipeline.settings.measurements import STAINS, MeasurementsConfig

ALWAYS, COMPARTMENTS, POSITIVE = "", "compartments", "positive"
_CLASS, _CHANNEL, _COMPARTMENT = "{class}", "{channel}", "{compartment}"
_NAMES = {_CLASS: "(?P<of_class>.+)", _CHANNEL: "(?P<channel>.+)", _COMPARTMENT: "(?P<compartment>[A-Za-z0-9]+)"}
# Of an object, a mean says nothing of which one it is, where it lies and how it is turned; positive ones are counted.
_WITHOUT_MEAN = re.compile(r"id|z|t|(centroid_.*|top|left|bottom|right)_px|orientation.*|positive_.*")
_AS_IN_SLIDE = "as in the slide"
_UNITS = {"_px": "px", "_um": "µm"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A column of the table of objects.

    Attributes
    ----------
    column : str
        Its name; ``{channel}``, ``{class}`` and ``{compartment}`` stand for those of the slide.
    group : str
        The group or setting that it belongs to; empty for those that every object has.
    about : str
        What it is, or its formula.
    unit : str
        Empty for text and counts.
    title : str
        Its name among the measurements in QuPath; empty if it is none there.
    cellprofiler : str
        Its name in CellProfiler, if it has one.
    is_text : bool
        Whether it is no number.
    is_whole : bool
        Whether it is a whole number.
    """

    column: str
    group: str = ALWAYS
    about: str
    unit: str = ""
    title: str = ""
    cellprofiler: str = ""
    is_text: bool = False
    is_whole: bool = False


def _length(name: str, title: str, about: str, cellprofiler: str) -> Iterator[Measurement]:
    """Yield a length of the group ``shape`` in px and in µm."""
    for suffix, unit in _UNITS.items():
        also = "" if suffix == "_px" else " Empty unless the pixel size is known, the same along rows and columns."
        yield Measurement(
            column=f"{name}{suffix}",
            group="shape",
            about=f"{about}{also}",
            unit=unit,
            title=f"{title} {unit}",
            cellprofiler=f"AreaShape_{cellprofiler}",
        )


def _intensity(name: str, title: str, about: str, cellprofiler: str, group: str = "intensity") -> Measurement:
    return Measurement(
        column=f"{name}_intensity_{{channel}}",
        group=group,
        about=f"{about} in channel {{channel}}.",
        unit=_AS_IN_SLIDE,
        title=f"{{channel}}: {title}",
        cellprofiler=f"Intensity_{cellprofiler}_{{channel}}",
    )


_ELLIPSE = "of the ellipse with the same second moments"
_FERET = (
    "of two parallel lines with the object between them, as in scikit-image: with the pixels whose centres are in its "
    "convex hull, and the middles of the sides of each pixel."
)

_WHERE = "Empty for objects of other classes, and without a pixel size."
_PARTS = [("_ring", "the ring around the object"), ("", "the object and the ring around it")]

DICTIONARY = [
    Measurement(column="id", about="Its number in the image named instances of the mask, from 1.", is_whole=True),
    Measurement(column="class", about="Its class.", is_text=True),
    Measurement(
        column="regions", about="Names of the regions that its centroid is in, separated by semicolons.", is_text=True
    ),
    Measurement(
        column="area_px",
        about="Its pixels.",
        unit="px",
        title="Area px",
        cellprofiler="AreaShape_Area",
        is_whole=True,
    ),
    Measurement(
        column="area_um2",
        about="The same in µm²; empty if the pixel size is not known.",
        unit="µm²",
        title="Area µm^2",
    ),
    Measurement(
        column="centroid_row_px",
        about="Mean row of its pixels; the centre of the first pixel of the slide is 0.",
        unit="px",
        cellprofiler="Location_Center_Y",
    ),
    Measurement(
        column="centroid_column_px",
        about="Mean column of its pixels.",
        unit="px",
        cellprofiler="Location_Center_X",
    ),
    Measurement(column="top_px", about="First row of its bounding box.", unit="px", is_whole=True),
    Measurement(column="left_px", about="First column of its bounding box.", unit="px", is_whole=True),
    Measurement(column="bottom_px", about="First row below its bounding box.", unit="px", is_whole=True),
    Measurement(column="right_px", about="First column to the right of its bounding box.", unit="px", is_whole=True),
    Measurement(
        column="eccentricity",
        about=f"sqrt(1 - (minor axis / major axis)²) {_ELLIPSE}: 0 is a circle, near 1 a line.",
        unit="1",
        title="Eccentricity",
        cellprofiler="AreaShape_Eccentricity",
    ),
    _intensity("mean", "Mean", "Mean of its pixels", "MeanIntensity", group=ALWAYS),
    *_length(
        "perimeter",
        "Perimeter",
        "Length of its outline with those of its holes, by Crofton's formula: π/4 (n + m/√2), where n lines along rows "
        "and columns and m lines along diagonals enter it.",
        "Perimeter",
    ),
    Measurement(
        column="circularity",
        group="shape",
        about="4π area / perimeter²: 1 is a disc; small objects can be slightly above.",
        unit="1",
        title="Circularity",
        cellprofiler="AreaShape_FormFactor",
    ),
    Measurement(
        column="solidity",
        group="shape",
        about="Area / pixels whose centres are in its convex hull, that of the middles of the sides of its pixels.",
        unit="1",
        title="Solidity",
        cellprofiler="AreaShape_Solidity",
    ),
    Measurement(
        column="extent",
        group="shape",
        about="Area / area of its bounding box.",
        unit="1",
        title="Extent",
        cellprofiler="AreaShape_Extent",
    ),
    *_length("major_axis", "Major axis length", f"Longer axis {_ELLIPSE}, from end to end.", "MajorAxisLength"),
    *_length("minor_axis", "Minor axis length", f"Shorter axis {_ELLIPSE}, from end to end.", "MinorAxisLength"),
    Measurement(
        column="orientation_deg",
        group="shape",
        about="Angle from the direction of columns (downwards) to its major axis, counter-clockwise, above -90 and up "
        "to 90; empty if both axes are equal.",
        unit="°",
        title="Orientation °",
        cellprofiler="AreaShape_Orientation",
    ),
    *_length("max_feret", "Max diameter", f"Largest distance {_FERET}", "MaxFeretDiameter"),
    *_length("min_feret", "Min diameter", f"Smallest distance {_FERET}", "MinFeretDiameter"),
    Measurement(
        column="holes",
        group="shape",
        about="Its holes: 4-connected regions inside of it that are not of it. CellProfiler has 1 less this number.",
        title="Holes",
        cellprofiler="AreaShape_EulerNumber",
        is_whole=True,
    ),
    _intensity(
        "median",
        "Median",
        "Median of its pixels (of an object with more than 2^20, of about as many, a fixed choice spread over it)",
        "MedianIntensity",
    ),
    _intensity("sd", "Std.Dev.", "Standard deviation sqrt(mean((x - mean)²)) of its pixels", "StdIntensity"),
    _intensity("min", "Min", "Minimum of its pixels", "MinIntensity"),
    _intensity("max", "Max", "Maximum of its pixels", "MaxIntensity"),
    _intensity("integrated", "Sum", "Sum of its pixels", "IntegratedIntensity"),
    _intensity(
        "edge_mean",
        "Edge mean",
        "Mean of its pixels that have another object, background or the end of the image above, below or beside them,",
        "MeanIntensityEdge",
    ),
    Measurement(
        column="nearest_{class}_px",
        group="neighbours",
        about="Distance between its centroid and the nearest of another object of the class; empty if there is none.",
        unit="px",
        title="Distance to {class} px",
    ),
    Measurement(
        column="nearest_{class}_um",
        group="neighbours",
        about="The same in µm; empty if the pixel size is not known.",
        unit="µm",
        title="Distance to {class} µm",
    ),
    Measurement(
        column="neighbours",
        group="neighbours",
        about="Number of other objects whose centroids are at most neighbour_radius_um away from its own; empty if "
        "the pixel size is not known.",
        title="Neighbours within radius",
        cellprofiler="Neighbors_NumberOfNeighbors",
        is_whole=True,
    ),
    *(
        Measurement(
            column=f"{_COMPARTMENT}{part}_area_um2",
            group=COMPARTMENTS,
            about=f"Area of {which}. {_WHERE}",
            unit="µm²",
            title=f"{_COMPARTMENT}{part.replace('_', ' ')}: Area µm^2",
        )
        for part, which in _PARTS
    ),
    *(
        Measurement(
            column=f"{_COMPARTMENT}{part}_mean_intensity_{_CHANNEL}",
            group=COMPARTMENTS,
            about=f"Mean of the pixels of {which} in channel {_CHANNEL}. {_WHERE}",
            unit=_AS_IN_SLIDE,
            title=f"{_COMPARTMENT}{part.replace('_', ' ')}: {_CHANNEL}: Mean",
        )
        for part, which in _PARTS
    ),
    Measurement(
        column=f"positive_{_CHANNEL}",
        group=POSITIVE,
        about=f"1 if its mean intensity in channel {_CHANNEL} is above the threshold in measurements.positive, else 0; "
        "that of a compartment if measurements.score_compartment names one, then empty for objects without it.",
        title=f"{_CHANNEL}: Positive",
        is_whole=True,
    ),
]

PLANES = {  # after the id, where the planes of stacks are segmented one by one
    axis: Measurement(column=axis, group="stacks", about=about, is_whole=True)
    for axis, about in (
        ("z", "Number of its plane in the stack, from 0; with `image.z: each`."),
        ("t", "Number of its time point, from 0; with `image.t: each`."),
    )
}

SCORE = Measurement(  # after all others
    column="score",
    group="detection",
    about="How sure the network is of its class, 0 to 1; only of networks that detect objects (`mask_rcnn`).",
    unit="1",
    title="Score",
)


def measurements(
    config: MeasurementsConfig, classes: Sequence[str], channels: Sequence[int | str], each: Sequence[str] = ()
) -> list[Measurement]:
    """Return the columns of the table of objects, in their order.

    Parameters
    ----------
    classes : sequence of str
        The first is background.
    channels : sequence of int or str
        Channels that the network sees, as configured. Stains come after them if they are measured.
    each : sequence of str
        ``t``, ``z`` or both, if the planes of stacks are segmented one by one.
    """
    channels = list(dict.fromkeys(channels))
    stains = STAINS if "stains" in config.groups else ()
    first, *others = _of_groups(ALWAYS, *config.groups)
    wanted = [first, *(one for axis, one in PLANES.items() if axis in each), *others]
    return [
        *_named(wanted, {_CLASS: classes[1:], _CHANNEL: channels}),
        *_named([one for one in wanted if _CHANNEL in one.column], {_CHANNEL: stains}),
        *_named(_of_groups(COMPARTMENTS), {_COMPARTMENT: list(config.compartments), _CHANNEL: [*channels, *stains]}),
        *_named(_of_groups(POSITIVE), {_CHANNEL: list(config.positive)}),
    ]


def _of_groups(*groups: str) -> list[Measurement]:
    return [one for one in DICTIONARY if one.group in groups]


def _named(entries: Iterable[Measurement], names: Mapping[str, Sequence[int | str]]) -> Iterator[Measurement]:
    """Yield the columns for all names that the placeholders of entries stand for."""
    for one in entries:
        placeholder = next((placeholder for placeholder in names if placeholder in one.column), None)
        if placeholder is None:
            yield one
            continue
        others = {key: own for key, own in names.items() if key != placeholder}
        for name in names[placeholder]:
            shown = f"Channel {name}" if placeholder == _CHANNEL and str(name).isdecimal() else str(name)
            is_stain = placeholder == _CHANNEL and name in STAINS
            replaced = replace(
                one,
                unit="1" if is_stain and one.unit == _AS_IN_SLIDE else one.unit,
                column=one.column.replace(placeholder, str(name)),
                about=one.about.replace(placeholder, str(name)),
                title=one.title.replace(placeholder, shown),
            )
            yield from _named([replaced], others)


@cache
def entry_of(column: str) -> Measurement | None:
    """Return the entry that a column of the table of objects is of, with its own names; None if it is of none."""
    for one in [*DICTIONARY, *PLANES.values()]:
        pattern = re.escape(one.column)
        for placeholder, named in _NAMES.items():
            pattern = pattern.replace(re.escape(placeholder), named)
        if found := re.fullmatch(pattern, column):
            names = {f"{{{key.removeprefix('of_')}}}": [name] for key, name in found.groupdict().items()}
            return next(_named([one], names))
    return None


def has_mean(column: str) -> bool:
    """Return whether a number in the table of objects is averaged in the table of regions."""
    return _WITHOUT_MEAN.fullmatch(column) is None


def is_positive(column: str) -> bool:
    """Return whether a column of the table of objects says which are positive: they are counted in each region."""
    return column.startswith("positive_")
