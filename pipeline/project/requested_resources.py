"""Memory and time that a job asks for, from the size of its slides.

Before a slide has a plan, only the bytes of its file are known; headers are not opened, since every job of a cluster
would open all of them. The plan says the number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.project.drop_folder import Sample
from pipeline.runtime.job_limits import Limit, memory_limit
from pipeline.settings.networks import ModelConfig

_PX_PER_BYTE = 4.0  # of slides with three channels as JPEG; all others have fewer
_UNKNOWN_MPX = 20_000.0  # of a slide whose pixels are in other files
_PROCESS_MB = 1000  # Python and the libraries of a stage without a network
_PIECE_MB = 1000  # decoded at once by a stage that reads a large slide by region, unless its tiles are larger
_BYTES_PER_PX = 24  # three channels, decoded and as float32
_USABLE = 0.9  # share of the memory of a machine
_LEAST_BUDGET_MB = 1000

# What a slow node manages: few cores, no GPU, a shared file system
_BASE_MIN = 10  # start of a job and its imports
_STEPS_PER_MIN = 15  # of training
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
    """Return the millions of pixels of a slide: those of its ``plan``, else the most that its bytes can hold."""
    if plan is not None and (planned := _planned_mpx(plan)) is not None:
        return planned
    path = Path(sample.slide)
    if path.suffix.lower() == ".mrxs" or any(part.lower().endswith(".zarr") for part in path.parts):
        return _UNKNOWN_MPX
    return sample.size_mb * _PX_PER_BYTE


def files_mpx(paths: Iterable[str]) -> float:
    """Return the most millions of pixels that files of their size can hold."""
    return sum(Path(path).stat().st_size for path in paths) / 1e6 * _PX_PER_BYTE


def reading_mb(mpx: float, budget_mb: int, attempt: int) -> int:
    """Return the memory in MB of a job that reads slides by region.

    Parameters
    ----------
    mpx : float
        Millions of pixels of its largest slide. A small slide may be decoded as a whole, of a large one a piece.
    budget_mb : int
        Memory that decoding may take; larger pieces are refused.
    attempt : int
        From 1. The piece doubles with every attempt.
    """
    decoded_mb = min(mpx * _BYTES_PER_PX, _PIECE_MB * 2.0 ** (attempt - 1), budget_mb)
    return round(_PROCESS_MB * attempt + decoded_mb)


def minutes(stage: str, mpx: float, attempt: int) -> int:
    """Return the minutes of a job of ``stage`` for ``mpx`` millions of pixels."""
    return round(_BASE_MIN + mpx / _MPX_PER_MIN[stage]) * attempt


def minutes_to_train(model: ModelConfig, attempt: int) -> int:
    """Return the minutes of a training, which goes on where it was if the next attempt has to finish it."""
    expected = min(model.max_steps / _STEPS_PER_MIN, model.max_seconds / 60 * 1.2)
    return round(expected + 30) * attempt


def affordable_mb(budget_mb: int, limit: Limit | None = None) -> tuple[int, str]:
    """Return the budget, lowered to the memory of this machine or container, and a warning if it was lowered.

    Labels do not depend on the budget; which slides are refused for their size may.
    """
    limit = limit or memory_limit()
    if limit is None or budget_mb <= limit.memory_mb * _USABLE:
        return budget_mb, ""
    lowered = max(_LEAST_BUDGET_MB, int(limit.memory_mb * _USABLE))
    if lowered >= budget_mb:
        return budget_mb, ""
    return lowered, (
        f"tiling.memory_mb is {budget_mb}, but only {limit.memory_mb} MB are available ({limit.source}): "
        f"jobs use {lowered}; set it to that to silence this warning"
    )


def _planned_mpx(plan: Path) -> float | None:
    """Return the pixels by a plan, 0 for a slide that cannot be read; None without a plan of this version."""
    try:
        slide = read_json(plan)["slide"]
        rows, columns = slide["grid"]["shape"] if slide else (0, 0)
        return float(rows * columns) / 1e6
    except (SlidemillError, OSError, KeyError, TypeError, ValueError):
        return None
