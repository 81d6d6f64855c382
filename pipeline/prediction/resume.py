"""Progress of the prediction of a batch of slides: a list of records, one for each batch of windows that was written.

An interrupted prediction continues after a record. So the same windows go through the network together, and all results
and counts are those of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pipeline.tiling.plan import SlidePlan

Slides = list[tuple[str, SlidePlan]]


@dataclass(kw_only=True)
class Tally:
    """Counts of a sample, or of a part of it.

    Attributes
    ----------
    pixels
        Pixels that went through the network.
    rows
        Rows of tiles that are written, if tiles are blended.
    uncertain_px, differing_px, compared_px
        Pixels of what is written; see :class:`pipeline.prediction.measurements.Speed`.
    error
        Why the slide cannot be read.
    """

    pixels: int = 0
    rows: int = 0
    uncertain_px: int = 0
    differing_px: int = 0
    compared_px: int = 0
    error: str = ""

    def add(self, part: Self) -> None:
        """Add the counts of another part of the sample."""
        self.pixels += part.pixels
        self.rows += part.rows
        self.uncertain_px += part.uncertain_px
        self.differing_px += part.differing_px
        self.compared_px += part.compared_px
        self.error = self.error or part.error


@dataclass(kw_only=True)
class JournalRecord:
    """Counts of the windows [``first``, ``stop``), which are numbered over all samples.

    ``spent`` is the time until then, by part, including interrupted runs.
    """

    first: int
    stop: int
    spent: dict[str, float]
    samples: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :func:`dataclasses.asdict` returned."""
        samples = {name: Tally(**tally) for name, tally in content["samples"].items()}
        return cls(**content | {"samples": samples})


@dataclass(kw_only=True)
class Progress:
    """Where to continue.

    Attributes
    ----------
    first
        First window that is still to do.
    spent
        Time until now, by part.
    samples
        Counts of each sample until now.
    """

    first: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Tally] = field(default_factory=dict)


def progress_of(records: Iterable[JournalRecord], slides: Slides) -> Progress:
    """Return where to continue after ``records`` of the windows of ``slides`` (sample id and plan).

    That is after the last record. Only if tiles are blended, the windows of the last written row of tiles go through
    the network again: the next row needs them.
    """
    found = Progress(samples={sample: Tally() for sample, _ in slides})
    done: list[JournalRecord] = []
    for record in records:
        while done and done[-1].first >= record.first:  # repeated by a later run
            done.pop()
        done.append(record)
        for sample, tally in record.samples.items():
            found.samples[sample].add(replace(tally, pixels=0))
    needed = _first_needed(slides, found)
    while done and done[-1].stop > needed:
        done.pop()
    for record in done:
        for sample, tally in record.samples.items():
            found.samples[sample].pixels += tally.pixels
    if done:
        found.first, found.spent = done[-1].stop, done[-1].spent
    return found


def remaining(slides: Slides, first: int) -> Slides:
    """Return the slides that have windows from number ``first`` on, each with a plan of these only."""
    left = []
    for sample, plan in slides:
        if first < plan.count:
            left.append((sample, plan.without(first)))
        first = max(0, first - plan.count)
    return left


def _first_needed(slides: Slides, found: Progress) -> int:
    """Return the first window that a blended sample needs to be completed."""
    first = 0
    for sample, plan in slides:
        rows, columns = plan.grid.counts
        tally = found.samples[sample]
        if plan.grid.overlap_px and tally.rows < rows and not tally.error:
            return first + max(0, tally.rows - 1) * columns
        first += plan.count
    return first
