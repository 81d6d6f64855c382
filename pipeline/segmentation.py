"""Slides through a network: batches are read ahead in threads, scored on the device, and written behind in a thread.

The three overlap, so that the slowest of them, the network, sets the pace; how long it waited for the others is
measured.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models.folding import fold_batch_norm
from models.interface import SegmentationModel
from models.rounding import round_between_the_ends
from pipeline.blending import Blend, Probabilities
from pipeline.checkpoint import ModelCard
from pipeline.inference import crop_slices, labels_of, logits_within_memory, probabilities_of, to_device, uncertain_of
from pipeline.limits import memory_limit
from pipeline.memory import AHEAD, budget_within, largest_window_px, outside_the_heap
from pipeline.plan import SlidePlan
from pipeline.predictions import PredictionWriter
from pipeline.speed import Speed
from pipeline.windows import Batch, Place, read_batches

log = logging.getLogger(__name__)

_BATCH_PX = {"cpu": 2**20, "cuda": 2**24, "mps": 2**22}  # beyond this, windows gain nothing from going together

Value = TypeVar("Value")


class Scores(NamedTuple):
    """What the network says of windows, (N, ...): labels, or probabilities to blend, or both to keep."""

    labels: NDArray[np.uint8] | None
    uncertain: NDArray[np.bool_] | None
    probabilities: Probabilities | None


def make_ready(network: SegmentationModel, device: torch.device, precision: str) -> None:
    """Prepare a network for prediction: on its device, in ``precision``, normalization folded into convolutions."""
    log.info("%d batch normalizations folded into convolutions", fold_batch_norm(network))
    if precision == "bfloat16":
        round_between_the_ends(network)
    network.to(device).to(memory_format=torch.channels_last)


def batch_limit_px(window_px: int, device: torch.device) -> int:
    """Return up to how many pixels windows go together, if memory allows ``window_px``."""
    return min(window_px, _BATCH_PX[device.type])


def segment_slides(
    network: SegmentationModel,
    card: ModelCard,
    slides: list[tuple[str, SlidePlan]],
    writer: PredictionWriter,
    *,
    memory_mb: int,
    threads: int,
) -> Speed:
    """Read ``slides`` (sample id and plan) and run them through a network that is ready; the rest as :func:`segment`.

    Reading and network together stay within ``memory_mb`` and what this process may have; half of the ``threads`` read.
    """
    device = next(network.parameters()).device
    if device.type == "cpu":  # a GPU has the windows in memory of its own
        memory_mb = budget_within(memory_limit(), card, (plan.grid for _, plan in slides), memory_mb=memory_mb)
    batches = read_batches(
        slides,
        batch_px=batch_limit_px(largest_window_px(card, memory_mb), device),
        memory_mb=memory_mb,
        threads=max(1, threads // 2),
        ahead=AHEAD,
    )
    return segment(network, slides, batches, writer)


def segment(
    network: SegmentationModel, slides: list[tuple[str, SlidePlan]], batches: Iterable[Batch], writer: PredictionWriter
) -> Speed:
    """Run all batches through the network and write what it says.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on its device.
    slides : list of (sample id, plan)
        Those that the batches are read from, in the same order.
    batches : iterable of Batch
    writer : PredictionWriter
        Has begun the slides.

    Returns
    -------
    Speed
        How long it took, and what the network waited for.
    """
    sink, clock = _Sink(slides, writer), _Clock()
    with behind(sink.write) as put:
        stream = iter(batches)
        while True:
            with clock.measure("reading"):
                batch = next(stream, None)
            if batch is None:
                break
            with clock.measure("network"):
                scores = _score(network, batch, writer.keeps_probabilities) if batch.places else None
            with clock.measure("writing"):
                put((batch, scores))
        with clock.measure("writing"):
            put(None)
    return sink.sum_up(clock, network)


def _score(network: SegmentationModel, batch: Batch, keep_probabilities: bool) -> Scores:
    """Return what the network says of a batch.

    What is cut off and blended follows from the network, so it is the same for all slides.
    """
    grid = batch.places[0].plan.grid
    weight = next(network.parameters())
    logits = logits_within_memory(network, to_device(batch.pixels, weight), grid.cut_px)
    if grid.overlap_px:
        return Scores(None, None, probabilities_of(logits))
    probabilities = probabilities_of(logits) if keep_probabilities else None
    return Scores(_to_host(labels_of(logits)), _to_host(uncertain_of(logits)), probabilities)


def _to_host(values: torch.Tensor) -> NDArray[Any]:
    """Copy small integers from the device; they are still being written while the next windows are in the network."""
    host = outside_the_heap(tuple(values.shape), np.bool_ if values.dtype == torch.bool else np.uint8)
    torch.from_numpy(host).copy_(values)
    return host


@contextmanager
def behind(consume: Callable[[Value], None]) -> Iterator[Callable[[Value | None], None]]:
    """Run ``consume`` in a thread of its own, one item behind; what it raises is raised by the next call, or the last.

    The function that is given takes an item, waits until the one before it is done, and returns; ``None`` only waits.
    """
    with ThreadPoolExecutor(1) as pool:
        running: Future[None] | None = None

        def put(item: Value | None) -> None:
            nonlocal running
            if running is not None:
                running.result()
            running = None if item is None else pool.submit(consume, item)

        yield put


class _Clock:
    """Seconds that were spent in each part of the loop."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.spent = {"reading": 0.0, "network": 0.0, "writing": 0.0}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        self.spent[part] += time.monotonic() - before


class _Sink:
    """The slides of the batch on their way out, and what was measured on it."""

    def __init__(self, slides: list[tuple[str, SlidePlan]], writer: PredictionWriter) -> None:
        self.writer = writer
        self.pixels = dict.fromkeys((sample for sample, _ in slides), 0)
        self.uncertain_px = dict.fromkeys(self.pixels, 0)
        self.slide_px = {sample: math.prod(plan.grid.shape) for sample, plan in slides}  # glass included
        self.blends = {sample: Blend(plan.grid, writer.num_classes) for sample, plan in slides if plan.grid.overlap_px}

    def write(self, scored: tuple[Batch, Scores | None]) -> None:
        """Write a batch: exact tiles at once, blended ones when their neighbours are there."""
        batch, scores = scored
        for unreadable in batch.unreadable:
            log.warning("%s", unreadable.error)
            self.writer.fail(unreadable.sample, stage="predict", error=unreadable.error)
        for index, place in enumerate(batch.places):
            assert scores is not None
            self.pixels[place.sample] += int(np.prod(place.tile.write.shape))
            if scores.labels is None:
                assert scores.probabilities is not None
                self._blend(place, scores.probabilities[index])
            else:
                self._write(place, scores, index)

    def _write(self, place: Place, scores: Scores, index: int) -> None:
        assert scores.labels is not None
        assert scores.uncertain is not None
        inside = crop_slices(place.tile)
        kept = None if scores.probabilities is None else scores.probabilities[index, :, *inside]
        self.uncertain_px[place.sample] += int(scores.uncertain[index, *inside].sum())
        self.writer.write(place.sample, place.tile.write, scores.labels[index, *inside], kept)

    def _blend(self, place: Place, probabilities: Probabilities) -> None:
        for region, blended in self.blends[place.sample].add(place.tile, probabilities):
            self.uncertain_px[place.sample] += int(uncertain_of(torch.from_numpy(blended)[None].log()).sum())
            labels = blended.argmax(axis=0).astype(np.uint8)
            self.writer.write(place.sample, region, labels, blended if self.writer.keeps_probabilities else None)

    def sum_up(self, clock: _Clock, network: SegmentationModel) -> Speed:
        """Return what was measured."""
        return Speed(
            pixels=sum(self.pixels.values()),
            wall_s=max(time.monotonic() - clock.start, 1e-9),
            network_s=clock.spent["network"],
            reading_s=clock.spent["reading"],
            writing_s=clock.spent["writing"],
            differing_px=sum(blend.mismatch.differing_px for blend in self.blends.values()),
            compared_px=sum(blend.mismatch.compared_px for blend in self.blends.values()),
            device=str(next(network.parameters()).device),
            precision=_precision_of(network),
            threads=torch.get_num_threads(),
            uncertain={
                sample: self.uncertain_px[sample] / self.slide_px[sample]
                for sample, pixels in self.pixels.items()
                if pixels
            },
            mismatch={sample: blend.mismatch.share for sample, blend in self.blends.items()},
        )


def _precision_of(network: SegmentationModel) -> str:
    return "bfloat16" if any(weight.dtype == torch.bfloat16 for weight in network.parameters()) else "float32"
