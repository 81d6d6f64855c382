"""Segment the slides of one batch with one loaded network, tile by tile."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from models.interface import SegmentationModel
from pipeline.blending import Blend, Probabilities
from pipeline.checkpoint import ModelCard
from pipeline.device import prepare
from pipeline.errors import SlidemillError
from pipeline.files import provenance, sha256, write_json
from pipeline.inference import crop_slices, crop_to, labels_of, logits_of, probabilities_of, to_device, uncertain_of
from pipeline.plan import Plan, SlidePlan, read_plan
from pipeline.predictions import PredictionWriter, write_predictions
from pipeline.speed import Speed
from pipeline.stage_config import PredictConfig
from pipeline.tiling import Grid
from pipeline.weights_file import load_network
from pipeline.windows import Unreadable, Window, ahead, batched, read_windows

log = logging.getLogger(__name__)

_PIXEL_SIZE_TOLERANCE = 0.2


def run(
    *,
    weights: Path,
    plans: Path,
    batch: str,
    output: Path,
    speed: Path,
    threads: int,
    memory_mb: int,
    config: PredictConfig,
) -> None:
    """Predict every sample of ``batch`` that has a plan below ``plans``.

    Writes one zarr zip to ``output``, and how fast it was to ``speed`` (JSON).
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
        measured = _predict(network, list(_begin(found, card, writer)), writer, memory_mb)
        origin = provenance("predict", config, weights=sha256(weights))
        writer.finish(origin)
    write_json(speed, measured.to_dict() | {"provenance": origin})
    log.info(
        "%.2f Mpx in %.1f s, %.1f s of it in the network", measured.pixels / 1e6, measured.wall_s, measured.network_s
    )
    if measured.compared_px:
        share = 100 * measured.differing_px / measured.compared_px
        log.info("tile mismatch: windows disagree at %.2f %% of the pixels they share", share)


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
        for tile in plan.slide.glass():
            writer.skip(plan.sample, tile.write)
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


class _Scores(NamedTuple):
    """What the network says of windows, (N, ...), or of one: labels, or probabilities to blend, or both to keep."""

    labels: torch.Tensor | None
    uncertain: torch.Tensor | None
    probabilities: Probabilities | None

    def of(self, index: int) -> _Scores:
        """Return those of one window."""
        labels, uncertain, probabilities = (None if part is None else part[index] for part in self)
        return _Scores(labels, uncertain, probabilities)  # type: ignore[arg-type]


class _Progress:
    """The slides of the batch on their way out, and what was measured on it."""

    def __init__(self, slides: list[tuple[str, SlidePlan]], num_classes: int, writer: PredictionWriter) -> None:
        self.writer = writer
        self.network_s = 0.0
        self.pixels = dict.fromkeys((sample for sample, _ in slides), 0)
        self.uncertain_px = dict.fromkeys(self.pixels, 0)
        self.slide_px = {sample: math.prod(plan.grid.shape) for sample, plan in slides}  # glass included
        self.blends = {sample: Blend(plan.grid, num_classes) for sample, plan in slides if plan.grid.overlap_px}

    def write(self, window: Window, scores: _Scores) -> None:
        """Write a window, or what it completes: exact tiles at once, blended ones when their neighbours are there."""
        sample, tile, probabilities = window.sample, window.tile, scores.probabilities
        self.pixels[sample] += int(np.prod(tile.write.shape))
        if scores.labels is not None and scores.uncertain is not None:
            kept = None if probabilities is None else probabilities[..., *crop_slices(tile)]
            self.uncertain_px[sample] += int(crop_to(scores.uncertain, tile).sum())
            self.writer.write(sample, tile.write, crop_to(scores.labels, tile).numpy(), kept)
        elif probabilities is not None:
            for region, blended in self.blends[sample].add(tile, probabilities):
                self.uncertain_px[sample] += int(uncertain_of(torch.from_numpy(blended)[None].log()).sum())
                labels = blended.argmax(axis=0).astype(np.uint8)
                self.writer.write(sample, region, labels, blended if self.writer.keeps_probabilities else None)

    def measure(self, network: SegmentationModel, wall_s: float) -> Speed:
        """Sum up."""
        return Speed(
            pixels=sum(self.pixels.values()),
            wall_s=wall_s,
            network_s=self.network_s,
            differing_px=sum(blend.mismatch.differing_px for blend in self.blends.values()),
            compared_px=sum(blend.mismatch.compared_px for blend in self.blends.values()),
            device=str(next(network.parameters()).device),
            threads=torch.get_num_threads(),
            uncertain={
                sample: self.uncertain_px[sample] / self.slide_px[sample]
                for sample, pixels in self.pixels.items()
                if pixels
            },
            mismatch={sample: blend.mismatch.share for sample, blend in self.blends.items()},
        )


def _predict(
    network: SegmentationModel, slides: list[tuple[str, SlidePlan]], writer: PredictionWriter, memory_mb: int
) -> Speed:
    """Run all windows through the network; return how fast, and how busy the network was."""
    start, progress = time.monotonic(), _Progress(slides, writer.num_classes, writer)
    plans = dict(slides)
    for group in batched(ahead(read_windows(slides, memory_mb=memory_mb))):
        if isinstance(group, Unreadable):
            log.warning("%s", group.error)
            writer.fail(group.sample, stage="predict", error=group.error)
            continue
        before = time.monotonic()
        scores = _classify(network, group, plans[group[0].sample].grid, writer.keeps_probabilities)
        progress.network_s += time.monotonic() - before
        for index, window in enumerate(group):
            progress.write(window, scores.of(index))
    return progress.measure(network, max(time.monotonic() - start, 1e-9))


def _classify(network: SegmentationModel, group: list[Window], grid: Grid, keep_probabilities: bool) -> _Scores:
    """Return (N, rows, columns) labels unless they are to be blended, and (N, classes, ...) probabilities if needed.

    ``grid`` is that of the first window: what is cut off follows from the network, so it is the same for all slides.
    """
    windows = to_device(np.stack([window.pixels for window in group]), next(network.parameters()).device)
    logits = logits_of(network, windows, grid.cut_px)
    if grid.overlap_px:
        return _Scores(None, None, probabilities_of(logits))
    probabilities = probabilities_of(logits) if keep_probabilities else None
    return _Scores(labels_of(logits).cpu(), uncertain_of(logits).cpu(), probabilities)
