"""Histograms of what was measured on objects, for the page.

Those of a network are small drawings of a few hundred characters each. Of large projects, they show some of the
objects: pieces of some of the tables, spread evenly over all, so that the time does not grow with their number.
Those of a sample are counts, which the stage `objects` makes, with a picture of which object is in which bar.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.palette import class_rgb, css
from pipeline.masks.measurements.columns import Columns
from pipeline.masks.measurements.dictionary import entry_of
from pipeline.report.outcome import Outcome
from pipeline.report.page.page_types import Figure
from pipeline.report.pictures import MOST_BARS, picture_of_marks

_MOST_TABLES = 200  # that are read
_MOST_BYTES = 2**24  # of them, about 50,000 objects
_PIECES = 16  # of a table that is not read as a whole
_MOST_FIGURES = 12
_FIRST = ("area_um2", "area_px", "circularity", "eccentricity", "solidity")
_BARS, _WIDTH, _HEIGHT = 40, 320, 120
_MOST_OF_SAMPLE = 4  # measurements
_MOST_MARKS = 1000  # objects in the picture of marks, which takes at most 6 kB then
_MEAN = "mean_intensity_"
_OUTERMOST = 0.5  # percent at either end that are counted in the first and the last bar


def histograms(found: list[Outcome], model: str, classes: Sequence[str]) -> list[Figure]:
    """Return a figure per measurement of the objects of a network; none without objects.

    Parameters
    ----------
    found : list of Outcome
        All samples.
    model : str
        The network.
    classes : sequence of str
        Background first.
    """
    done = [one for one in found if one.model == model and one.is_done and one.objects_table]
    total = sum(one.found["objects"]["objects"] for one in done)
    objects = _some_objects([Path(str(one.objects_table)) for one in done])
    if not total or objects.empty:
        return []
    shown = f"{len(objects):,} of {total:,} objects" if len(objects) < total else f"{total:,} objects"
    return [_figure(objects, name, classes, shown) for name in islice(_measurements(objects), _MOST_FIGURES)]


def histograms_of_sample(columns: Columns, shape: tuple[int, int]) -> tuple[dict[str, Any], bytes]:
    """Return the histograms of a sample, and the picture that marks its objects by their bars.

    Parameters
    ----------
    columns : mapping of (objects,) arrays
        The table of objects.
    shape : (rows, columns)
        Of the slide.

    Returns
    -------
    dict
        ``histograms``: by column, of up to four, ``low``, ``high`` and the ``counts`` of up to 15 bars of one width
        between them; what is lower or higher counts in the first and the last one. ``marked``: how many objects the
        picture has, at most 1000, spread evenly.
    bytes
        The picture, as ``picture_of_marks`` describes it, in the same order.
    """
    names = _measurements_of_sample(columns)
    centroids_px = np.stack([columns["centroid_row_px"], columns["centroid_column_px"]], axis=1)
    count = len(centroids_px)
    marked = np.linspace(0, count - 1, min(count, _MOST_MARKS)).astype(np.intp)
    histograms, bars = {}, np.zeros((len(names), count), np.uint8)
    for number, name in enumerate(names):
        values = columns[name].astype(np.float64)
        is_known = np.isfinite(values)
        low, high = np.percentile(values[is_known], [_OUTERMOST, 100 - _OUTERMOST]).tolist()
        width = (high - low) / MOST_BARS or 1.0
        bars[number, is_known] = ((values[is_known] - low) / width).clip(0, MOST_BARS - 1).astype(np.uint8) + 1
        counts = np.bincount(bars[number], minlength=MOST_BARS + 1)[1:].tolist()
        histograms[name] = {"low": low, "high": high, "counts": counts}
    picture = picture_of_marks(bars[:, marked], centroids_px[marked], shape)
    return {"histograms": histograms, "marked": len(marked)}, picture


def _measurements_of_sample(columns: Columns) -> list[str]:
    """Return what a sample has histograms of: area, circularity, mean intensities, then other shapes.

    Channels with a threshold for positive objects come before others.
    """
    means = [name for name in columns if name.startswith(_MEAN)]
    means.sort(key=lambda name: f"positive_{name.removeprefix(_MEAN)}" not in columns)
    is_known = {
        name: np.isfinite(columns[name].astype(np.float64)).any() for name in [*_FIRST, *means] if name in columns
    }
    area = "area_um2" if is_known.get("area_um2") else "area_px"
    wanted = [area, "circularity", *means, "eccentricity", "solidity"]
    return [name for name in wanted if is_known.get(name)][:_MOST_OF_SAMPLE]


def _measurements(objects: pd.DataFrame) -> list[str]:
    """Return what is drawn, the most important first: area, shape, mean intensities; in µm² if that is known."""
    names = [str(name) for name in objects if objects[name].notna().any()]
    first = [name for name in _FIRST if name in names and not (name == "area_px" and "area_um2" in names)]
    return first + [name for name in names if "mean_intensity" in name and not name.startswith("edge_")]


def _figure(objects: pd.DataFrame, name: str, classes: Sequence[str], shown: str) -> Figure:
    entry = entry_of(name)
    by_class = {label: objects.loc[objects["class"] == label, name].dropna().to_numpy() for label in classes[1:]}
    medians = ", ".join(f"{label} {np.median(own):.4g}" for label, own in by_class.items() if len(own))
    return Figure(
        title=entry.title if entry else name,
        caption=f"{name} of {shown}; median: {medians}.",
        svg=_draw(by_class),
    )


def _draw(by_class: Mapping[str, NDArray[Any]]) -> str:
    """Draw bars for each class, over the same range, as an SVG image."""
    together = np.concatenate(list(by_class.values()))
    low, high = np.percentile(together, [_OUTERMOST, 100 - _OUTERMOST])
    counts = [np.histogram(np.clip(own, low, high), _BARS, (low, high))[0] for own in by_class.values()]
    highest = max(1, *(int(own.max()) for own in counts))
    bars = []
    for number, (label, own) in enumerate(zip(by_class, counts, strict=True), start=1):
        heights = np.round(own / highest * _HEIGHT, 1)
        steps = "".join(f"V{_HEIGHT - height:g}h{_WIDTH // _BARS}" for height in heights)
        colour = css(class_rgb(number))
        bars.append(f'<path d="M0 {_HEIGHT}{steps}V{_HEIGHT}z" fill="{colour}" fill-opacity=".5" stroke="{colour}"/>')
        if len(by_class) > 1:
            bars.append(f'<text x="{_WIDTH}" y="{14 * number - 16}" text-anchor="end" fill="{colour}">{label}</text>')
    ends = ((0, "start", low), (_WIDTH, "end", high))
    texts = [f'<text x="{x}" y="{_HEIGHT + 14}" text-anchor="{side}">{value:.4g}</text>' for x, side, value in ends]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -14 {_WIDTH + 4} {_HEIGHT + 32}" width="{_WIDTH}" '
        f'font-family="sans-serif" font-size="12">{"".join(bars)}<text y="-2">{highest:,}</text>{"".join(texts)}</svg>'
    )


def _some_objects(tables: Sequence[Path]) -> pd.DataFrame:
    """Return rows of tables of objects, at most about 16 MB of at most 200 tables, spread evenly."""
    tables = tables[:: max(1, -(-len(tables) // _MOST_TABLES))]
    by_header: dict[bytes, list[bytes]] = defaultdict(list)
    for table in tables:
        header, rows = _some_rows(table, _MOST_BYTES // len(tables))
        by_header[header].append(rows)
    return pd.concat(
        [pd.DataFrame({"class": []})]
        + [
            pd.read_csv(
                io.BytesIO(header + b"".join(rows)),
                usecols=lambda name: name == "class" or name in _FIRST or "mean_intensity" in name,
                dtype={"class": str},
                keep_default_na=False,
                na_values=[""],
            )
            for header, rows in by_header.items()
        ],
        ignore_index=True,
    )


def _some_rows(table: Path, most_bytes: int) -> tuple[bytes, bytes]:
    """Return the header of a table and whole rows of it: all, or pieces from evenly spaced places."""
    size = table.stat().st_size
    with table.open("rb") as file:
        header = file.readline()
        if size <= most_bytes:
            return header, file.read()
        pieces = []
        for place in np.linspace(len(header), size, _PIECES, endpoint=False, dtype=np.int64).tolist():
            file.seek(place)
            file.readline()  # the rest of a row
            pieces.append(file.read(most_bytes // _PIECES) + file.readline())
        return header, b"".join(pieces)
