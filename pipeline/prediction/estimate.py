"""Estimates of tiles, time, memory and disk space for segmenting a slide, from its shape and the card of a network.

No pixel is decoded. Speed is that of earlier runs, or measured on one window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from models.base.folding import fold_batch_norm
from models.base.interface import SegmentationModel
from pipeline.networks.model_card import ModelCard
from pipeline.prediction.forward import Windows, logits_of, to_device
from pipeline.prediction.measurements import Measurements
from pipeline.tiling.grid import Cut, Grid
from pipeline.tiling.memory_budget import needed_mb

_MASK_BYTES_PER_PX = 0.15  # classes, object ids and pyramid, zlib: nuclei at 20x take about that
_LABEL_BYTES_PER_PX = 0.05  # kept predictions, zstd: 0.02 of nuclei, 0.06 of membranes
_PROBABILITY_BYTES, _HEAD_BYTES = 2, 1  # at most: they shrink too, by what depends on the slide
_TIMED_PX = 512  # side of the window that is timed
_TIMED_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Pixels of a slide per second, measured with tiles that compute ``redundancy`` pixels for each of them."""

    px_per_s: float
    redundancy: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimate for one slide; ``shape`` and ``pixel_size_um`` are those of its header."""

    shape: tuple[int, int]
    pixel_size_um: tuple[float, float] | None
    tiles: int
    redundancy: float
    time_s: float
    memory_mb: int
    disk_mb: float


def estimate(
    grid: Grid,
    pixel_size_um: tuple[float, float] | None,
    card: ModelCard,
    speed: Throughput,
    *,
    probabilities: bool,
    heads: bool = False,
    planes: int = 1,
) -> Estimate:
    """Return the estimate for one slide, as if none of it were glass, which a run may skip.

    ``probabilities`` and ``heads`` say what predictions keep, ``planes`` how many are segmented one by one.
    """
    slide_px = math.prod(grid.shape) * planes
    window_px = max(math.prod(tile.read.shape) for tile in grid.tiles())
    kept = len(card.classes) * _PROBABILITY_BYTES * probabilities + len(card.heads) * _HEAD_BYTES * heads
    return Estimate(
        shape=grid.shape,
        pixel_size_um=pixel_size_um,
        tiles=grid.count * planes,
        redundancy=grid.redundancy,
        time_s=slide_px / speed.px_per_s * grid.redundancy / speed.redundancy,
        memory_mb=needed_mb(card, window_px),
        disk_mb=slide_px * (_MASK_BYTES_PER_PX + _LABEL_BYTES_PER_PX + kept) / 1e6,
    )


def throughput_of_slides(slides: Iterable[Measurements], redundancy: float) -> Throughput | None:
    """Return the throughput of earlier predictions, assumed to have tiles of this redundancy; None without them."""
    found = list(slides)
    pixels, wall_s = sum(slide.pixels for slide in found), sum(slide.wall_s for slide in found)
    if not pixels:
        return None
    return Throughput(px_per_s=pixels / wall_s, redundancy=redundancy, source=f"earlier predictions ({len(found)})")


def measure_throughput(network: SegmentationModel, *, in_channels: int, device: torch.device) -> Throughput:
    """Time a window of 512 px on this machine for two seconds; weights do not matter."""
    network.eval()
    fold_batch_norm(network)
    network.to(device).to(memory_format=torch.channels_last)
    stride = network.geometry.stride_px
    side = -(-max(_TIMED_PX, 2 * network.geometry.halo_px + stride) // stride) * stride
    empty = Windows.normalized(np.zeros((1, in_channels, side, side), dtype=np.float32))
    window = to_device(empty, next(network.parameters()))
    logits_of(network, window, Cut.all_sides(network.geometry.halo_px)).cpu()  # the first pass is slower
    start, count = time.monotonic(), 0
    while time.monotonic() - start < _TIMED_S:
        logits_of(network, window, Cut.all_sides(network.geometry.halo_px)).cpu()
        count += 1
    px_per_s = count * side**2 / (time.monotonic() - start)
    return Throughput(px_per_s=px_per_s, redundancy=1.0, source=f"timed on a window of {side} px, on {device}")
