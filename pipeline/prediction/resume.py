"""Progress of the prediction of one slide: it is recorded after every batch of windows.

An interrupted prediction continues after a record. So the same windows go through the network together, and the result
and all counts are those of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.tiling.grid import Grid

PARTS = ("wall", "network", "reading", "writing")


@dataclass(kw_only=True)
class Progress:
    """How much of a slide is done, and what was counted so far.

    Attributes
    ----------
    windows
        Windows that went through the network: the first ones of the plan.
    rows
        Rows of tiles that are written, if tiles are blended.
    uncertain_px, differing_px, compared_px
        Pixels of what is written; see :class:`pipeline.prediction.measurements.Measurements`.
    seconds
        Time of the slide, by part, including interrupted runs.
    """

    windows: int = 0
    rows: int = 0
    uncertain_px: int = 0
    differing_px: int = 0
    compared_px: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def add_time(self, spent: Mapping[str, float], share: float) -> None:
        """Add a share of the seconds that a batch of windows took."""
        for part, seconds in spent.items():
            self.seconds[part] += share * seconds

    def idle_s(self, part: str) -> float:
        """Return how long devices were idle for ``reading`` or ``writing``: divided as the loop waited for these."""
        waited = self.seconds["reading"] + self.seconds["writing"]
        idle = max(0.0, self.seconds["wall"] - self.seconds["network"])
        return idle * self.seconds[part] / waited if waited else 0.0


def resume_after(records: Sequence[Progress], grid: Grid) -> Progress:
    """Return the progress to continue from: that of the last record.

    Only if tiles are blended, the windows of the last written row of tiles go through the network again: the next row
    needs them. Then it continues after an earlier record, so that windows share batches as before.
    """
    if not records:
        return Progress()
    last = records[-1]
    if not grid.overlap_px:
        return last
    needed = max(0, last.rows - 1) * grid.counts[1]
    return replace(last, windows=max((one.windows for one in records if one.windows <= needed), default=0))
