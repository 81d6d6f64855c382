"""Compute how many pixels a window may have, and how much memory windows take.

Memory is that of the process, of the activations of the windows in the network, and of the windows that are read ahead.
All but the first grow with the pixels of a window, so the budget limits them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.base.errors import ConfigError
from pipeline.networks.model_card import ModelCard
from pipeline.runtime.job_limits import Limit
from pipeline.tiling.grid import Grid

AHEAD = 2  # batches that are read while the network is busy
_PROCESS_BYTES = 850 * 10**6  # Python with torch, zarr and tifffile, the caches of decoders
_HEAP = 2.0  # size of the heap relative to the arrays in it, since freed and new pieces differ in size
_WEIGHT_BYTES = 12  # of a weight, its copy for folding, and its reordered copy for convolutions
_RAW_BYTES = 8 + 4  # of a pixel and channel while decoded and normalized: float64 at worst, then float32
_SCORE_BYTES = 24  # of a pixel of the output: best logit, label, whether it is uncertain, and their copies


def largest_window_px(card: ModelCard, memory_mb: int) -> int:
    """Return how many pixels the windows of one batch may have, halos included.

    Raises
    ------
    ConfigError
        If the process alone needs more than ``memory_mb``.
    """
    fixed = _fixed_bytes(card)
    free = memory_mb * 10**6 - fixed
    if free <= 0:
        raise ConfigError(
            f"tiling.memory_mb is {memory_mb}, of which this network and its libraries alone take {fixed // 10**6}; "
            "raise it"
        )
    return free // _bytes_per_px(card)


def needed_mb(card: ModelCard, window_px: int) -> int:
    """Return the memory that windows of ``window_px`` pixels take, as :func:`largest_window_px` plans it."""
    return -(-(_fixed_bytes(card) + window_px * _bytes_per_px(card)) // 10**6)


def budget_within(limit: Limit | None, card: ModelCard, grids: Iterable[Grid], *, memory_mb: int) -> int:
    """Return ``memory_mb``, or the limit of this process if that is lower and the planned tiles fit into it.

    Raises
    ------
    ConfigError
        If a window of the ``grids`` needs more than the limit: the job would be killed.
    """
    if limit is None or memory_mb <= limit.memory_mb:
        return memory_mb
    window_px = max((grid.window_px for grid in grids), default=0)
    needed = needed_mb(card, window_px)
    if needed > limit.memory_mb:
        raise ConfigError(
            f"tiles planned for tiling.memory_mb of {memory_mb} take about {needed} MB, this job may take "
            f"{limit.memory_mb} MB ({limit.source}); give it more (mem_mb), or lower tiling.memory_mb and plan again "
            "(snakemake --forcerun tile)"
        )
    return limit.memory_mb


def _fixed_bytes(card: ModelCard) -> int:
    return _PROCESS_BYTES + _WEIGHT_BYTES * (card.parameters or 0)


def _bytes_per_px(card: ModelCard) -> int:
    return round(_HEAP * card.bytes_per_px) + _SCORE_BYTES + (_RAW_BYTES + 4 * AHEAD) * card.in_channels
