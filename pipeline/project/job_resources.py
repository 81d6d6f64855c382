"""What a job asks of the machine: memory and time, from the size of its slides.

Before there is a plan, nothing is known of a slide but the bytes of its file; headers are not opened, since every job
of a cluster would open all of them. Afterwards its pixels are known. No torch, and nothing slow: the Snakefile asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.project.drop_folder import Sample
from pipeline.runtime.limits import Limit, memory_limit

_PX_PER_BYTE = 4.0  # slides as JPEG, three channels, have about that; all others have fewer
_UNKNOWN_MPX = 20_000.0  # of a slide whose pixels lie in other files than its own
_PROCESS_MB = 1000  # Python and the libraries of a stage without a network
_PIECE_MB = 1000  # what a stage that reads by region decodes of a large slide; more only where its pieces are large
_BYTES_PER_PX = 24  # three channels, decoded and as float32
_SPARED = 0.9  # of the memory of a machine, what a budget may be
_LEAST_BUDGET_MB = 1000

_BASE_MIN = 10  # start of a job and its imports, on a slow file system
# What a slow node does at least: two cores, no GPU, a file system that others use too.
_MPX_PER_MIN = {
    "weigh": 5,
    "tile": 300,
    "inspect": 3000,
    "predict": 30,
    "validate": 20,
    "stitch": 100,
    "objects": 100,
    "evaluate": 60,
}


def slide_mpx(sample: Sample, plan: Path | None = None) -> float:
    """Return the millions of pixels of a slide: those of its ``plan``, else at most what its bytes can hold."""
    if plan is not None and (planned := _planned_mpx(plan)) is not None:
        return planned
    path = Path(sample.slide)
    if path.suffix.lower() == ".mrxs" or any(part.lower().endswith(".zarr") for part in path.parts):
        return _UNKNOWN_MPX
    return sample.size_mb * _PX_PER_BYTE


def files_mpx(paths: Iterable[str]) -> float:
    """Return at most how many millions of pixels are in files, by their bytes."""
    return sum(Path(path).stat().st_size for path in paths) / 1e6 * _PX_PER_BYTE


def reading_mb(mpx: float, budget_mb: int, attempt: int) -> int:
    """Return the memory, MB, of a job that reads slides by region, the largest of which has ``mpx``.

    It may decode the whole of a small slide, and a piece of a large one: twice as much with every attempt, up to
    ``budget_mb``, beyond which pieces are refused.
    """
    decoded_mb = min(mpx * _BYTES_PER_PX, _PIECE_MB * 2.0 ** (attempt - 1), budget_mb)
    return round(_PROCESS_MB * attempt + decoded_mb)


def minutes(stage: str, mpx: float, attempt: int) -> int:
    """Return the minutes that a job of ``stage`` is given for ``mpx``."""
    return round(_BASE_MIN + mpx / _MPX_PER_MIN[stage]) * attempt


def affordable_mb(budget_mb: int, limit: Limit | None = None) -> tuple[int, str]:
    """Return the budget, lowered to what this machine or container has, and a line that says so, or nothing.

    Labels do not depend on the budget, so it may follow the machine; what is refused for its size may.
    """
    limit = limit or memory_limit()
    if limit is None or budget_mb <= limit.memory_mb * _SPARED:
        return budget_mb, ""
    lowered = max(_LEAST_BUDGET_MB, int(limit.memory_mb * _SPARED))
    if lowered >= budget_mb:
        return budget_mb, ""
    return lowered, (
        f"tiling.memory_mb is {budget_mb}, of which {limit.memory_mb} MB are there ({limit.source}): "
        f"jobs go by {lowered}; set that to end this warning"
    )


def _planned_mpx(plan: Path) -> float | None:
    """Return what a plan says, 0 of a slide that cannot be read; None without a plan of this version."""
    try:
        slide = read_json(plan)["slide"]
        rows, columns = slide["grid"]["shape"] if slide else (0, 0)
        return float(rows * columns) / 1e6
    except (SlidemillError, OSError, KeyError, TypeError, ValueError):
        return None
