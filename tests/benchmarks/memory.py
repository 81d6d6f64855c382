"""Peak memory of tile, predict and stitch on slides of one width with more and more rows.

The budget is so small that the least slide has several windows. Where freed memory lies in the heap, and how many
windows wait, differ by some percent from run to run: a peak is the median of three.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.common import Project, say, say_machine, write_slide
from tests.support.networks import write_network

WIDTH_PX = 2048
MEMORY_MB = 1200
RUNS = 3


def main(*rows: int) -> None:
    """Print the machine, then the peak memory of every stage for every slide."""
    say_machine()
    peaks: dict[str, list[float]] = {"tile": [], "predict": [], "stitch": []}
    for count in rows or (10_000, 40_000, 100_000):
        for stage, measured in jobs_of(count).items():
            peaks[stage].append(statistics.median(measured))
            say("memory", stage=stage, rows=count, columns=WIDTH_PX, peaks_mb=measured, budget_mb=MEMORY_MB)
    for stage, values in peaks.items():
        say("memory", stage=stage, most_over_least=max(values) / min(values), budget_mb=MEMORY_MB)


def jobs_of(rows: int) -> dict[str, list[float]]:
    """Run the stages on a slide; return the peak memory of each in every run, MB."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), write_network(Path(folder), width=2), memory_mb=MEMORY_MB)
        slide = Path(folder) / "slide.tif"
        write_slide(slide, (rows, WIDTH_PX))
        runs = {
            "tile": lambda: project.tile("slide", slide),
            "predict": lambda: project.predict("slide"),
            "stitch": lambda: project.stitch("slide", "slide"),
        }
        return {stage: [round(run()[1] / 1e6) for _ in range(RUNS)] for stage, run in runs.items()}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
