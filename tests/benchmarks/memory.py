"""Memory does not grow: tile, predict and stitch on slides of one width and ever more rows, each job by itself."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.benchmarks.common import Project, say, say_machine, write_network, write_slide

WIDTH_PX = 2048
MEMORY_MB = 2000
BUDGET = {"budget_mb": MEMORY_MB}


def main(*rows: int) -> None:
    """Print the machine, then the peak memory of every stage for every slide."""
    say_machine()
    peaks: dict[str, list[float]] = {"tile": [], "predict": [], "stitch": []}
    for count in rows or (10_000, 40_000, 100_000):
        for stage, (taken, peak) in jobs_of(count).items():
            peaks[stage].append(peak / 1e6)
            say("memory", stage=stage, rows=count, columns=WIDTH_PX, seconds=taken, peak_mb=peak / 1e6, **BUDGET)
    for stage, values in peaks.items():
        say("memory", stage=stage, most_over_least=max(values) / min(values), peak_mb=max(values), **BUDGET)


def jobs_of(rows: int) -> dict[str, tuple[float, int]]:
    """Run the stages on a slide; return the seconds and the peak memory of each."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), write_network(Path(folder), width=2), memory_mb=MEMORY_MB)
        slide = Path(folder) / "slide.tif"
        write_slide(slide, (rows, WIDTH_PX))
        return {
            "tile": project.tile("slide", slide),
            "predict": project.predict("slide"),
            "stitch": project.stitch("slide", "slide"),
        }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
