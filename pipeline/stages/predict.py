"""Segment the slides of one batch with one loaded network, tile by tile."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from models.interface import SegmentationModel
from pipeline.checkpoint import ModelCard
from pipeline.config import PredictConfig
from pipeline.device import prepare
from pipeline.errors import SlidemillError
from pipeline.files import provenance, sha256
from pipeline.inference import crop_to, labels_of, logits_of, to_device
from pipeline.plan import Plan, SlidePlan, read_plan
from pipeline.predictions import PredictionWriter, write_predictions
from pipeline.weights_file import load_network
from pipeline.windows import Unreadable, Window, ahead, batched, read_windows

log = logging.getLogger(__name__)

_PIXEL_SIZE_TOLERANCE = 0.2


def run(
    *, weights: Path, plans: Path, batch: str, output: Path, threads: int, memory_mb: int, config: PredictConfig
) -> None:
    """Predict every sample of ``batch`` that has a plan below ``plans``; write one zarr zip to ``output``.

    ``weights`` is model.safetensors, with model.json beside it. A slide that cannot be read is recorded in the
    output with its reason; the others go on.
    """
    device = prepare(threads)
    network, card = load_network(weights)
    if card.classes != config.classes:
        raise SlidemillError(f"{weights}: its classes are {card.classes}, the configuration has {config.classes}")
    network.to(device).to(memory_format=torch.channels_last)
    found = batch_plans(plans, batch)
    with write_predictions(output, num_classes=len(card.classes), probabilities=config.probabilities) as writer:
        _predict(network, list(_begin(found, card, writer)), writer, memory_mb)
        writer.finish(provenance("predict", config, weights=sha256(weights)))


def batch_plans(plans: Path, batch: str) -> list[Plan]:
    """Return the plans of a batch: of the slide of that name, and of those in the folder of that name."""
    paths = [plans / f"{batch}.json", *sorted((plans / batch).glob("*.json"))]
    found = [read_plan(path) for path in paths if path.is_file()]
    if not found:
        raise SlidemillError(f"{plans}: no plan of batch {batch!r}; run the stage tile first")
    return found


def _begin(plans: list[Plan], card: ModelCard, writer: PredictionWriter) -> Iterator[tuple[str, SlidePlan]]:
    """Make room for the readable slides and record the others."""
    for plan in plans:
        if plan.slide is None:
            writer.fail(plan.sample, stage="tile", error=plan.error or "")
            continue
        if not plan.slide.slide.exists():  # removed from the drop folder; its plan is all that is left
            writer.fail(plan.sample, stage="predict", error=f"{plan.slide.slide}: the file is gone")
            continue
        _check_fit(plan.sample, plan.slide, card)
        writer.begin(plan.sample, plan.slide.grid)
        yield plan.sample, plan.slide


def _check_fit(sample: str, plan: SlidePlan, card: ModelCard) -> None:
    """Refuse a plan that was made for another network; warn where pixels are larger or smaller than in training."""
    if (plan.grid.stride_px, len(plan.channels)) != (card.geometry.stride_px, card.in_channels):
        raise SlidemillError(
            f"the plan of {sample!r} (stride {plan.grid.stride_px}, {len(plan.channels)} channels) is not for this "
            f"network (stride {card.geometry.stride_px}, {card.in_channels} channels); mend image.channels"
        )
    if card.pixel_size_um and plan.pixel_size_um:
        ratio = plan.pixel_size_um[0] / card.pixel_size_um[0]
        if abs(ratio - 1) > _PIXEL_SIZE_TOLERANCE:
            log.warning("%s: its pixels are %.2f times as large as those the network was trained on", sample, ratio)


def _predict(
    network: SegmentationModel, slides: list[tuple[str, SlidePlan]], writer: PredictionWriter, memory_mb: int
) -> None:
    """Run all windows through the network, and log how fast, and how busy the network was."""
    start, busy_s, pixels = time.monotonic(), 0.0, 0
    for group in batched(ahead(read_windows(slides, memory_mb=memory_mb))):
        if isinstance(group, Unreadable):
            log.warning("%s", group.error)
            writer.fail(group.sample, stage="predict", error=group.error)
            continue
        before = time.monotonic()
        labels, probabilities = _labels(network, group, keep_probabilities=writer.keeps_probabilities)
        busy_s += time.monotonic() - before
        for index, window in enumerate(group):
            kept = None if probabilities is None else crop_to(probabilities[index], window.tile).numpy()
            writer.write(window.sample, window.tile.write, crop_to(labels[index], window.tile).numpy(), kept)
            pixels += int(np.prod(window.tile.write.shape))
    wall_s = max(time.monotonic() - start, 1e-9)
    speed, share = pixels / 1e6 / wall_s, 100 * busy_s / wall_s
    log.info("%.2f Mpx in %.1f s, %.2f Mpx/s, network %.0f %%", pixels / 1e6, wall_s, speed, share)


def _labels(
    network: SegmentationModel, group: list[Window], *, keep_probabilities: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return (N, rows, columns) labels and, if kept, (N, classes, rows, columns) probabilities of the windows."""
    device = next(network.parameters()).device
    windows = to_device(np.stack([window.pixels for window in group]), device)
    halo_px = group[0].tile.write.top - group[0].tile.read.top
    logits = logits_of(network, windows, halo_px)
    probabilities = logits.float().softmax(dim=1).cpu() if keep_probabilities else None
    return labels_of(logits).cpu(), probabilities
