"""Parts of objects: what is kept of an object that lies in several blocks, until all of it has been read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.masks.measurements.hulls import Spans, measure_hulls
from pipeline.masks.measurements.intensities import Values, median
from pipeline.masks.measurements.runs import Runs

MOST_RANKED = 2**20  # pixels of an object; of a larger one, the median is that of about so many of them


def is_large(areas: Any) -> Any:
    """Return whether the median of objects of these areas is that of some of their pixels."""
    return areas > MOST_RANKED


@dataclass(frozen=True)
class Parts:
    """Parts of m objects.

    Attributes
    ----------
    spans : Spans
        Their rows.
    areas : (m,) array
        Pixels of each in ``values``.
    values : list of (pixels,) arrays
        By channel, object by object.
    """

    spans: Spans
    areas: NDArray[Any]
    values: Values

    def where(self, chosen: NDArray[np.bool_]) -> Parts:
        """Return those of the chosen objects."""
        return self._cut(chosen, np.repeat(chosen, self.spans.counts), np.repeat(chosen, self.areas))

    def one(self, nth: int) -> Parts:
        """Return that of one object."""
        rows, pixels = (
            slice(before := int(counts[:nth].sum()), before + int(counts[nth]))
            for counts in (self.spans.counts, self.areas)
        )
        return self._cut(slice(nth, nth + 1), rows, pixels)

    def _cut(self, objects: Any, rows: Any, pixels: Any) -> Parts:
        own = self.spans
        spans = Spans(own.counts[objects], own.rows[rows], own.begins[rows], own.ends[rows])
        return Parts(spans, self.areas[objects], [values[pixels] for values in self.values])

    def hulls(self) -> NDArray[np.float64]:
        """Return the measurements of :func:`measure_hulls`, (3, m); no part may be missing."""
        return measure_hulls(self.spans) if len(self.areas) else np.zeros((3, 0))

    def medians(self) -> NDArray[np.float64]:
        """Return the medians by channel, (channels, m); no part may be missing."""
        starts = np.cumsum(self.areas) - self.areas
        medians = [
            [median(own[start : start + area]) for start, area in zip(starts, self.areas, strict=True)]
            for own in self.values
        ]
        return np.array(medians).reshape(len(self.values), -1)


def parts_of(runs: Runs, values: Values, shape: tuple[int, ...], corner: tuple[int, int]) -> Parts:
    """Return the objects of a block of this shape, whose first pixel is at ``corner`` of the image."""
    rows, columns = np.divmod(runs.first, shape[1])
    rows, columns = rows + corner[0], columns + corner[1]
    return Parts(Spans(runs.counts, rows, columns, columns + runs.lengths - 1), runs.areas, values)


def join(parts: Sequence[Parts]) -> Parts:
    """Return the parts of one object as one."""
    columns = zip(*((one.spans.rows, one.spans.begins, one.spans.ends, *one.values) for one in parts), strict=True)
    rows, begins, ends, *values = (np.concatenate(own) for own in columns)
    areas = sum(one.areas for one in parts)
    return Parts(Spans(np.array([len(rows)]), rows, begins, ends), np.asarray(areas), values)


def thinned(part: Parts, area: int) -> Parts:
    """Return a part of one object with the pixels that its median is taken of: of a large object, a fixed choice.

    A pixel is in by its place alone, so that it does not matter in which blocks the object is read.

    Parameters
    ----------
    area : int
        Pixels of the whole object.
    """
    if not is_large(area):
        return part
    step = -(-area // MOST_RANKED)
    lengths = part.spans.ends - part.spans.begins + 1
    before = np.cumsum(lengths) - lengths
    columns = np.repeat(part.spans.begins - before, lengths) + np.arange(lengths.sum())
    chosen = _shuffled(np.repeat(part.spans.rows, lengths), columns) % np.uint64(step) == 0
    values = [own[chosen] for own in part.values]
    return Parts(part.spans, np.array([np.count_nonzero(chosen)]), values)


def _shuffled(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a number for each place that looks random (the mixer of SplitMix64, Steele et al. 2014)."""
    mixed = rows.astype(np.uint64) << np.uint64(32) | columns.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
