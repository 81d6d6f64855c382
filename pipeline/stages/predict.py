"""Segment the slides of one batch with one loaded network, tile by tile."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models.interface import SegmentationModel
from pipeline.checkpoint import ModelCard
from pipeline.config import PredictConfig
from pipeline.device import prepare
from pipeline.errors import SlideError, SlidemillError
from pipeline.files import provenance, sha256
from pipeline.inference import crop_to, labels_of, logits_of, to_device
from pipeline.intensity import normalize
from pipeline.plan import Plan, SlidePlan, read_plan
from pipeline.predictions import PredictionWriter, write_predictions
from pipeline.slides import open_slide
from pipeline.tiling import Tile, read_mirrored
from pipeline.weights_file import load_network

log = logging.getLogger(__name__)

_READ_AHEAD = 8  # windows decoded while the network is busy
_BATCH_PX = 640**2  # windows smaller than this are put through the network together

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The pixels of one tile, (channels, rows, columns) float32, normalized."""

    sample: str
    tile: Tile
    pixels: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A slide that turned out to be damaged while its windows were read."""

    sample: str
    error: str


def run(*, weights: Path, plans: Path, batch: str, output: Path, threads: int, config: PredictConfig) -> None:
    """Predict every sample of ``batch`` that has a plan below ``plans``; write one zarr zip to ``output``.

    ``weights`` is model.safetensors, with model.json beside it. A slide that cannot be read is recorded in the
    output with its reason; the others go on.
    """
    device = prepare(threads)
    network, card = load_network(weights)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = batch_plans(plans, batch)
    classes = len(card.classes)
    with write_predictions(output, num_classes=classes, probabilities=config.probabilities) as writer:
        readable = list(_begin(found, card, writer))
        _predict(network, readable, writer, config)
        writer.finish(provenance("predict", config, weights=sha256(weights)))


def batch_plans(plans: Path, batch: str) -> list[Plan]:
    """Return the plans of the samples of a batch: of the slide of that name, and of those in the folder of that name."""
    paths = [plans / f"{batch}.json", *sorted((plans / batch).glob("*.json"))]
    found = [read_plan(path) for path in paths if path.is_file()]
    if not found:
        raise SlidemillError(f"{plans}: no plan of batch {batch!r}; run the stage tile first")
    return found


def _begin(plans: list[Plan], card: ModelCard, writer: PredictionWriter) -> Iterator[tuple[str, SlidePlan]]:
    for plan in plans:
        if plan.slide is None:
            writer.fail(plan.sample, stage="tile", error=plan.error or "")
            continue
        if plan.slide.grid.stride_px != card.geometry.stride_px or len(plan.slide.channels) != card.in_channels:
            raise SlidemillError(
                f"the plan of {plan.sample!r} (stride {plan.slide.grid.stride_px}, {len(plan.slide.channels)} channels) "
                f"is not for this network (stride {card.geometry.stride_px}, {card.in_channels} channels); "
                "set image.channels to what the network was trained on"
            )
        writer.begin(plan.sample, plan.slide.grid)
        yield plan.sample, plan.slide


def _predict(
    network: SegmentationModel, slides: list[tuple[str, SlidePlan]], writer: PredictionWriter, config: PredictConfig
) -> None:
    start, busy_s, pixels = time.monotonic(), 0.0, 0
    halo_px = slides[0][1].grid.halo_px if slides else 0
    for group in _group(_ahead(_windows(slides, config.memory_mb))):
        if isinstance(group, Unreadable):
            log.warning("%s", group.error)
            writer.fail(group.sample, stage="predict", error=group.error)
            continue
        before = time.monotonic()
        windows = np.stack([window.pixels for window in group])
        logits = logits_of(network, to_device(windows, next(network.parameters()).device), halo_px)
        labels = labels_of(logits).cpu()
        probabilities = logits.float().softmax(dim=1).cpu() if config.probabilities else None
        busy_s += time.monotonic() - before
        for index, window in enumerate(group):
            kept = None if probabilities is None else crop_to(probabilities[index], window.tile).numpy()
            writer.write(window.sample, window.tile.write, crop_to(labels[index], window.tile).numpy(), kept)
            pixels += int(np.prod(window.tile.write.shape))
    wall_s = max(time.monotonic() - start, 1e-9)
    log.info("%.2f Mpx in %.1f s, %.2f Mpx/s, network %.0f %%", pixels / 1e6, wall_s, pixels / 1e6 / wall_s, 100 * busy_s / wall_s)


def _windows(slides: list[tuple[str, SlidePlan]], memory_mb: int) -> Iterator[Window | Unreadable]:
    """Read the windows of all slides, one after the other."""
    for sample, plan in slides:
        try:
            with open_slide(plan.slide, memory_mb=memory_mb) as slide:
                if slide.shape != plan.grid.shape:
                    raise SlideError(f"{plan.slide}: {slide.shape} px, but {plan.grid.shape} when it was planned; run again")
                for tile in plan.grid.tiles():
                    pixels = read_mirrored(slide.read, slide.shape, tile.read)[plan.channels]
                    yield Window(sample=sample, tile=tile, pixels=normalize(pixels, plan.statistics))
        except SlideError as error:
            yield Unreadable(sample=sample, error=str(error))


def _group(windows: Iterable[Window | Unreadable]) -> Iterator[list[Window] | Unreadable]:
    """Put consecutive windows of one shape together, as many as a batch holds."""
    group: list[Window] = []
    for window in windows:
        if isinstance(window, Unreadable):
            yield window
            continue
        if group and (window.pixels.shape != group[0].pixels.shape or _is_full(group)):
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _is_full(group: list[Window]) -> bool:
    rows, columns = group[0].pixels.shape[1:]
    return (len(group) + 1) * rows * columns > _BATCH_PX


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Run an iterator in a thread of its own, a few items ahead, so that reading and computing overlap."""
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=_READ_AHEAD)

    def fill() -> None:
        try:
            for item in items:
                waiting.put(item)
            waiting.put(_End(None))
        except BaseException as error:
            waiting.put(_End(error))

    threading.Thread(target=fill, daemon=True).start()
    while not isinstance(item := waiting.get(), _End):
        yield item
    if item.error is not None:
        raise item.error


@dataclass(frozen=True)
class _End:
    error: BaseException | None
