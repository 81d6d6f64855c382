"""Memory and time that a job asks for, from the size of its slides.

Only the bytes of its files are known; headers are not opened, since every job of a cluster would open all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.base.files import stats_of
from pipeline.project.drop.drop_folder import Sample
from pipeline.project.drop.image_files import parts_of
from pipeline.runtime.job_limits import Limit, memory_limit
from pipeline.settings.networks import ModelConfig

_PX_PER_BYTE = 4.0  # of slides with three channels as JPEG; all others have fewer
_PROCESS_MB = 1000  # Python and the libraries of a stage without a network
_PIECE_MB = 1000  # decoded at once by a stage that reads a large slide by region, unless its tiles are larger
_BYTES_PER_PX = 24  # three channels, decoded and as float32
_USABLE = 0.9  # share of the memory of a machine
_LEAST_BUDGET_MB = 1000

# What a slow node manages: few cores, no GPU, a shared file system
_PAIRS_PER_MIN = 4e9  # of pixels, in an iteration of a random field
_BASE_MIN = 10  # start of a job and its imports
_STEPS_PER_MIN = 15  # of training
_MPX_PER_MIN = {
    "weigh": 5,
    "tile": 250,
    "predict": 30,
    "validate": 20,
    "combine": 20,
    "stitch": 100,
    "objects": 100,
    "evaluate": 60,
}


def slide_mpx(sample: Sample) -> float:
    """Return the most millions of pixels that the bytes of a slide can hold, of a folder those below it."""
    return sample.size_mb * _PX_PER_BYTE


def files_mpx(paths: Iterable[Path]) -> float:
    """Return the most millions of pixels that images of their size can hold, each with its folder and parts."""
    return sum(stat.st_size for path in paths for stat in stats_of(path, *parts_of(path))) / 1e6 * _PX_PER_BYTE


def batch_mb(mpx: Sequence[float], threads: int, budget_mb: int, attempt: int) -> int:
    """Return the memory in MB of a job that reads the slides of a batch by region.

    Parameters
    ----------
    mpx : sequence of float
        Millions of pixels of each slide. A small slide may be decoded as a whole, of a large one a piece.
    threads : int
        A slide is read by each, in a process of its own.
    budget_mb : int
        Memory that decoding may take; larger pieces are refused.
    attempt : int
        From 1. The piece doubles with every attempt.
    """
    processes = min(threads, len(mpx))
    piece_mb = min(max(mpx, default=0.0) * _BYTES_PER_PX, _PIECE_MB * 2.0 ** (attempt - 1))
    return round(_PROCESS_MB * attempt * processes + min(processes * piece_mb, budget_mb))


def workers_within(samples: Sequence[Sample], *, threads: int, memory_mb: int) -> int:
    """Return how many samples a job works on at a time: one for each thread, as long as all fit into its memory."""
    largest_mpx = max((slide_mpx(sample) for sample in samples), default=0.0)
    decoded_mb = min(largest_mpx * _BYTES_PER_PX, memory_mb)
    return min(threads, len(samples), int(memory_mb // max(decoded_mb, 1)))


def minutes(stage: str, mpx: float, attempt: int, *, pairs_per_px: float = 0.0) -> int:
    """Return the minutes of a job of ``stage`` for ``mpx`` millions of pixels.

    ``pairs_per_px`` are pairs of pixels that a random field weighs in all its iterations, per pixel of a slide.
    """
    return round(_BASE_MIN + mpx / _MPX_PER_MIN[stage] + mpx * 1e6 * pairs_per_px / _PAIRS_PER_MIN) * attempt


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
