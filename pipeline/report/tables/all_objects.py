"""The table ``objects.csv``: those of all slides that are done, one below the other; other tables likewise."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.base.files import replacing, spreadsheet_text
from pipeline.report.outcome import Outcome
from pipeline.report.page.page_types import Column

_TOGETHER = 2**20  # characters of a table that are held at a time
_OF_SAMPLE = ["sample", "model", "group"]

_COLUMNS = [
    Column("sample", "Path of the slide below the drop folder, without its suffix."),
    Column("model", "Name of the network in the configuration."),
    Column("group", "Group of the sample sheet: an animal, a patient, a field."),
    Column("id", "Its number in the image named instances of the mask, from 1.", digits=0),
    Column("class", "Its class."),
    Column("regions", "Names of the regions that its centroid is in, separated by semicolons."),
    Column("area_px", "Its pixels.", digits=0),
    Column("area_um2", "The same in µm²; empty if the pixel size is not known.", digits=2),
    Column("centroid_row_px", "Mean row of its pixels; the centre of the first pixel of the slide is 0.", digits=2),
    Column("centroid_column_px", "Mean column of its pixels.", digits=2),
    Column("top_px", "First row of its bounding box.", digits=0),
    Column("left_px", "First column of its bounding box.", digits=0),
    Column("bottom_px", "First row below its bounding box.", digits=0),
    Column("right_px", "First column to the right of its bounding box.", digits=0),
    Column("eccentricity", "Of the ellipse with the same second moments: 0 is a circle, near 1 a line.", digits=4),
]


def columns(channels: Sequence[int | str]) -> list[Column]:
    """Return the columns of slides that are read with these channels."""
    about = "Mean of its pixels in channel {}, in units of the slide."
    return _COLUMNS + [
        Column(f"mean_intensity_{name}", about.format(name), digits=4) for name in dict.fromkeys(channels)
    ]


def gather(
    output: Path, found: list[Outcome], groups: Mapping[str, str], *, table_of: Callable[[Outcome], str | None]
) -> None:
    """Write the tables of all samples that are done into one, in the order of ``found``, a piece at a time.

    Columns that a slide does not have (it was read with other channels) are empty.

    Parameters
    ----------
    table_of : callable
        Returns the path of the table of a sample.

    Raises
    ------
    StorageError
        If writing fails (full disk, quota, no permission).
    """
    done = [(outcome, Path(path)) for outcome in found if outcome.is_done and (path := table_of(outcome))]
    headers = [_header(table) for _, table in done]
    names = list(dict.fromkeys(name for header in dict.fromkeys(map(tuple, headers)) for name in header))
    with replacing(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.write(_line([*_OF_SAMPLE, *names]))
        for (outcome, table), header in zip(done, headers, strict=True):
            named = [spreadsheet_text(text) for text in (outcome.sample, outcome.model, groups.get(outcome.sample, ""))]
            _append(file, table, _line(named).removesuffix("\n"), header, names)


def _append(file: io.TextIOBase, table: Path, named: str, header: list[str], names: list[str]) -> None:
    """Append the rows of one table; as they are if they have all columns, which is many times as fast."""
    with table.open(newline="", encoding="utf-8") as rows:
        if header == names:
            next(csv.reader(rows))
            prefix = f"{named},"
            while lines := rows.readlines(_TOGETHER):
                file.write(prefix + prefix.join(lines))
        else:
            for row in csv.DictReader(rows):
                file.write(f"{named},{_line([row.get(name, '') for name in names])}")


def _header(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
