"""Peak memory of tile, predict and stitch on slides of one width with more and more rows.

The budget is so small that the least slide has several windows. Where freed memory lies in the heap, and how many
windows wait, differ by some percent from run to run: a peak is the median of three.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from tests.benchmarks.common import THREADS, fresh_folder, say, say_machine, write_slide
from tests.support.jobs import Jobs
from tests.support.networks import write_network

WIDTH_PX = 2048
MEMORY_MB = 1200
RUNS = 3
STAGES = ("tile", "predict", "stitch")


def main(*rows: int) -> None:
    """Print the machine, then the peak memory of every stage for every slide."""
    say_machine()
    peaks: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for count in rows or (10_000, 40_000, 100_000):
        for stage, measured in peaks_of(count).items():
            peaks[stage].append(statistics.median(measured))
            say("memory", stage=stage, rows=count, columns=WIDTH_PX, peaks_mb=measured, budget_mb=MEMORY_MB)
    for stage, values in peaks.items():
        say("memory", stage=stage, most_over_least=max(values) / min(values), budget_mb=MEMORY_MB)


def peaks_of(rows: int) -> dict[str, list[float]]:
    """Run the stages on a slide; return the peak memory of each in every run, MB."""
    peaks: dict[str, list[float]] = {}
    with fresh_folder() as folder:
        jobs = Jobs(write_network(folder / "network", width=2), memory_mb=MEMORY_MB, threads=THREADS)
        write_slide(Path("slide.tif"), (rows, WIDTH_PX))
        jobs.put("slide", Path("slide.tif"))
        for stage in STAGES:
            for _ in range(RUNS):
                jobs.forget(stage)
                peaks.setdefault(stage, []).append(round(jobs.measure(stage)[1] / 1e6))
    return peaks


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
