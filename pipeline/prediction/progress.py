"""How far the prediction of a batch is, as a list of records, one for each batch of windows that was written.

An interrupted prediction goes on between two of these, so that the same windows go through the network together as if
nothing had been, and every result and every count is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from pipeline.tiling.plan import SlidePlan

Slides = list[tuple[str, SlidePlan]]


@dataclass(kw_only=True)
class Tally:
    """What came of a sample, or of a part of it.

    Attributes
    ----------
    pixels
        Went through the network.
    rows
        Of tiles that are written, of a sample that is blended.
    uncertain_px, differing_px, compared_px
        Of what is written; see :class:`pipeline.prediction.speed.Speed`.
    error
        Why it cannot be read.
    """

    pixels: int = 0
    rows: int = 0
    uncertain_px: int = 0
    differing_px: int = 0
    compared_px: int = 0
    error: str = ""

    def add(self, part: Self) -> None:
        """Add what came of another part of the sample."""
        self.pixels += part.pixels
        self.rows += part.rows
        self.uncertain_px += part.uncertain_px
        self.differing_px += part.differing_px
        self.compared_px += part.compared_px
        self.error = self.error or part.error


@dataclass(kw_only=True)
class JournalRecord:
    """What came of windows [``first``, ``stop``) of all that the samples have, numbered in their order.

    ``spent`` is the time until then, by part, that of earlier tries included.
    """

    first: int
    stop: int
    spent: dict[str, float]
    samples: dict[str, Tally] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned."""
        samples = {name: Tally(**tally) for name, tally in content["samples"].items()}
        return cls(**content | {"samples": samples})


@dataclass(kw_only=True)
class Progress:
    """Where to go on.

    Attributes
    ----------
    first
        The window to go on with.
    spent
        Time until then, by part.
    samples
        What came of each sample until now.
    """

    first: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Tally] = field(default_factory=dict)


def progress_of(records: Iterable[JournalRecord], slides: Slides) -> Progress:
    """Return where to go on after ``records``, the windows being those of ``slides`` (sample id and plan).

    That is after the last one, but for a sample that is blended: the first row of tiles that is not written needs the
    windows of the row before it. These go through the network again.
    """
    found = Progress(samples={sample: Tally() for sample, _ in slides})
    done: list[JournalRecord] = []
    for record in records:
        while done and done[-1].first >= record.first:  # an earlier try went on from before them
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
    """Return the slides that have windows from number ``first`` on, each planned with these alone."""
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
