"""The data dictionary of objects: what each column of their table is, and its names in QuPath and CellProfiler.

docs/measurements.md and `columns.csv` are written from it, and the stage `objects` writes the columns that it lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.settings.measurements import MeasurementsConfig

ALWAYS = ""
STAINS = ("Hematoxylin", "Eosin", "DAB")
_CLASS, _CHANNEL = "{class}", "{channel}"
# Of an object, a mean says nothing of which one it is, where it lies and how it is turned.
_WITHOUT_MEAN = re.compile(r"id|(centroid_.*|top|left|bottom|right)_px|orientation.*")
_UNITS = {"_px": "px", "_um": "µm"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A column of the table of objects.

    Attributes
    ----------
    column : str
        Its name; ``{channel}`` and ``{class}`` stand for those of the slide.
    group : str
        The setting that it belongs to; empty for those that every object has.
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
    """

    column: str
    group: str = ALWAYS
    about: str
    unit: str = ""
    title: str = ""
    cellprofiler: str = ""
    is_text: bool = False


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
        unit="as in the slide",
        title=f"{{channel}}: {title}",
        cellprofiler=f"Intensity_{cellprofiler}_{{channel}}",
    )


_ELLIPSE = "of the ellipse with the same second moments"
_FERET = (
    "of two parallel lines with the object between them, as in scikit-image: with the pixels whose centres are in its "
    "convex hull, and the middles of the sides of each pixel."
)

DICTIONARY = [
    Measurement(column="id", about="Its number in the image named instances of the mask, from 1."),
    Measurement(column="class", about="Its class.", is_text=True),
    Measurement(
        column="regions", about="Names of the regions that its centroid is in, separated by semicolons.", is_text=True
    ),
    Measurement(column="area_px", about="Its pixels.", unit="px", title="Area px", cellprofiler="AreaShape_Area"),
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
    Measurement(column="top_px", about="First row of its bounding box.", unit="px"),
    Measurement(column="left_px", about="First column of its bounding box.", unit="px"),
    Measurement(column="bottom_px", about="First row below its bounding box.", unit="px"),
    Measurement(column="right_px", about="First column to the right of its bounding box.", unit="px"),
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
    ),
]


def measurements(
    config: MeasurementsConfig, classes: Sequence[str], channels: Sequence[int | str]
) -> list[Measurement]:
    """Return the columns of the table of objects, in their order.

    Parameters
    ----------
    classes : sequence of str
        The first is background.
    channels : sequence of int or str
        Channels that the network sees, as configured. Stains come after them if they are measured.
    """
    wanted = [one for one in DICTIONARY if one.group in {ALWAYS, *config.groups}]
    names = {_CLASS: classes[1:], _CHANNEL: list(dict.fromkeys(channels))}
    found = [replaced for one in wanted for replaced in _replaced(one, names)]
    if "stains" in config.groups:
        of_channels = [replace(one, unit="1") for one in wanted if _CHANNEL in one.column]
        found += [replaced for one in of_channels for replaced in _replaced(one, {_CHANNEL: STAINS})]
    return found


def _replaced(one: Measurement, names: Mapping[str, Sequence[int | str]]) -> Iterator[Measurement]:
    """Yield the column for each name that its placeholder stands for; the column as it is without a placeholder."""
    for placeholder, own in names.items():
        if placeholder in one.column:
            for name in own:
                shown = f"Channel {name}" if isinstance(name, int) else name
                yield replace(
                    one,
                    column=one.column.replace(placeholder, str(name)),
                    about=one.about.replace(placeholder, str(name)),
                    title=one.title.replace(placeholder, shown),
                )
            return
    yield one


def has_mean(column: str) -> bool:
    """Return whether a number in the table of objects is averaged in the table of regions."""
    return _WITHOUT_MEAN.fullmatch(column) is None
