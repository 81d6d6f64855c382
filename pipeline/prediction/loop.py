"""Prediction of slides: batches of windows are read ahead, run through the network, and written in a thread.

Reading, network and writing overlap, so that a run takes as long as the slowest of them, the network. The time that it
waits for the others is measured.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from models.base.bfloat16 import convert_to_bfloat16
from models.base.folding import fold_batch_norm
from models.base.interface import SegmentationModel
from pipeline.base.arrays import outside_the_heap
from pipeline.networks.model_card import ModelCard
from pipeline.prediction.blending import Blend, Mismatch, Probabilities
from pipeline.prediction.forward import (
    crop_slices,
    labels_of,
    logits_within_memory,
    probabilities_of,
    to_device,
    uncertain_of,
)
from pipeline.prediction.measurements import Speed
from pipeline.prediction.resume import JournalRecord, Progress, Slides, Tally, progress_of, remaining
from pipeline.prediction.store import PredictionWriter
from pipeline.prediction.windows import Batch, Place, read_batches
from pipeline.runtime.job_limits import memory_limit
from pipeline.tiling.memory_budget import AHEAD, budget_within, largest_window_px
from pipeline.tiling.plan import SlidePlan

log = logging.getLogger(__name__)

_BATCH_PX = {"cpu": 2**20, "cuda": 2**24, "mps": 2**22}  # larger batches are not faster

Value = TypeVar("Value")


class Scores(NamedTuple):
    """Output of the network for N windows, (N, ...): labels, or probabilities to blend, or both if both are kept."""

    labels: NDArray[np.uint8] | None
    uncertain: NDArray[np.bool_] | None
    probabilities: Probabilities | None


def make_ready(network: SegmentationModel, device: torch.device, precision: str) -> None:
    """Move a network to its device and precision, and fold batch normalization into convolutions."""
    log.info("%d batch normalizations folded into convolutions", fold_batch_norm(network))
    if precision == "bfloat16":
        convert_to_bfloat16(network)
    network.to(device).to(memory_format=torch.channels_last)


def batch_limit_px(window_px: int, device: torch.device) -> int:
    """Return the most pixels of a batch, if memory allows ``window_px``."""
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
    """Predict slides and write the results; continue if an earlier run was interrupted.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on its device.
    slides : list of (sample id, plan)
    writer : PredictionWriter
        Has begun the slides, and has the records of an interrupted run.
    memory_mb : int
        Memory limit of reading and network together; the limit of this process holds too.
    threads : int
        Half of them read.

    Returns
    -------
    Speed
        Time of the run, and what the network waited for.
    """
    progress = progress_of(writer.records, slides)
    left = remaining(slides, progress.first)
    if writer.records:
        log.info("continuing after %d of %d windows", progress.first, sum(plan.count for _, plan in slides))
    device = next(network.parameters()).device
    if device.type == "cpu":  # a GPU holds the windows in its own memory
        memory_mb = budget_within(memory_limit(), card, (plan.grid for _, plan in slides), memory_mb=memory_mb)
    batches = read_batches(
        left,
        batch_px=batch_limit_px(largest_window_px(card, memory_mb), device),
        memory_mb=memory_mb,
        threads=max(1, threads // 2),
        ahead=AHEAD,
    )
    clock = _Clock(progress.spent)
    results = _ResultWriter(left, writer, progress, clock)
    _segment(network, batches, results, clock)
    return results.speed(network, slides)


def _segment(network: SegmentationModel, batches: Iterable[Batch], results: _ResultWriter, clock: _Clock) -> None:
    """Run all batches through the network, and write the results."""
    with write_behind(results.write) as put:
        stream = iter(batches)
        while True:
            with clock.measure("reading"):
                batch = next(stream, None)
            if batch is None:
                break
            with clock.measure("network"):
                scores = _score(network, batch, results.writer.keeps_probabilities) if batch.places else None
            with clock.measure("writing"):
                put((batch, scores))
        with clock.measure("writing"):
            put(None)


def _score(network: SegmentationModel, batch: Batch, keep_probabilities: bool) -> Scores:
    """Run a batch through the network.

    What is cut off and blended depends on the network only, so it is the same for all slides.
    """
    grid = batch.places[0].plan.grid
    weight = next(network.parameters())
    logits = logits_within_memory(network, to_device(batch.pixels, weight), grid.cut_px)
    if grid.overlap_px:
        return Scores(None, None, probabilities_of(logits))
    probabilities = probabilities_of(logits) if keep_probabilities else None
    return Scores(_to_host(labels_of(logits)), _to_host(uncertain_of(logits)), probabilities)


def _to_host(values: torch.Tensor) -> NDArray[Any]:
    """Copy small integers from the device into memory of their own: they are written while the network runs on."""
    host = outside_the_heap(tuple(values.shape), np.bool_ if values.dtype == torch.bool else np.uint8)
    torch.from_numpy(host).copy_(values)
    return host


@contextmanager
def write_behind(consume: Callable[[Value], None]) -> Iterator[Callable[[Value | None], None]]:
    """Run ``consume`` in a thread, at most one item behind; its exceptions are raised by the next call.

    Yields a function that takes an item, waits for the previous one, and returns; with ``None`` it only waits.
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
    """Seconds spent in each part of the loop, and in total; earlier, interrupted runs included."""

    def __init__(self, earlier: dict[str, float]) -> None:
        self._start = time.monotonic() - earlier.get("all", 0.0)
        self._spent = {part: earlier.get(part, 0.0) for part in ("reading", "network", "writing")}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        self._spent[part] += time.monotonic() - before

    def read(self) -> dict[str, float]:
        return self._spent | {"all": max(time.monotonic() - self._start, 1e-9)}


class _ResultWriter:
    """Writes the results of slides, and counts what was measured on them."""

    def __init__(self, slides: Slides, writer: PredictionWriter, progress: Progress, clock: _Clock) -> None:
        self.writer = writer
        self._samples, self._stop, self._clock = progress.samples, progress.first, clock
        for sample, tally in self._samples.items():
            if tally.error:
                writer.fail(sample, stage="predict", error=tally.error)
        self._blends = {
            sample: Blend(plan.grid, writer.num_classes, rows=self._samples[sample].rows, windows=plan.count)
            for sample, plan in slides
            if plan.grid.overlap_px
        }

    def write(self, scored: tuple[Batch, Scores | None]) -> None:
        """Write a batch: exact tiles at once, blended ones when their neighbours are done; then record it."""
        batch, scores = scored
        tallies: dict[str, Tally] = defaultdict(Tally)
        for unreadable in batch.unreadable:
            log.warning("%s", unreadable.error)
            self.writer.fail(unreadable.sample, stage="predict", error=unreadable.error)
            tallies[unreadable.sample].error = unreadable.error
        for index, place in enumerate(batch.places):
            assert scores is not None
            tally = tallies[place.sample]
            tally.pixels += math.prod(place.tile.write.shape)
            if scores.labels is None:
                assert scores.probabilities is not None
                self._blend(place, scores.probabilities[index], tally)
            else:
                self._write(place, scores, index, tally)
        first, self._stop = self._stop, self._stop + batch.requested
        for sample, tally in tallies.items():
            self._samples[sample].add(tally)
        self.writer.record(JournalRecord(first=first, stop=self._stop, spent=self._clock.read(), samples=dict(tallies)))

    def _write(self, place: Place, scores: Scores, index: int, tally: Tally) -> None:
        assert scores.labels is not None
        assert scores.uncertain is not None
        inside = crop_slices(place.tile)
        kept = None if scores.probabilities is None else scores.probabilities[index, :, *inside]
        tally.uncertain_px += int(scores.uncertain[index, *inside].sum())
        self.writer.write(place.sample, place.tile.write, scores.labels[index, *inside], kept)

    def _blend(self, place: Place, probabilities: Probabilities, tally: Tally) -> None:
        blend = self._blends[place.sample]
        rows, mismatch = blend.rows, replace(blend.mismatch)
        for region, blended in blend.add(place.tile, probabilities):
            tally.uncertain_px += int(uncertain_of(torch.from_numpy(blended)[None].log()).sum())
            labels = blended.argmax(axis=0).astype(np.uint8)
            self.writer.write(place.sample, region, labels, blended if self.writer.keeps_probabilities else None)
        tally.rows += blend.rows - rows
        tally.differing_px += blend.mismatch.differing_px - mismatch.differing_px
        tally.compared_px += blend.mismatch.compared_px - mismatch.compared_px

    def speed(self, network: SegmentationModel, slides: Slides) -> Speed:
        """Return the measurements on ``slides``."""
        spent = self._clock.read()
        slide_px = {sample: math.prod(plan.grid.shape) for sample, plan in slides}  # glass included
        blended = [sample for sample, plan in slides if plan.grid.overlap_px]
        return Speed(
            pixels=sum(tally.pixels for tally in self._samples.values()),
            wall_s=spent["all"],
            network_s=spent["network"],
            reading_s=spent["reading"],
            writing_s=spent["writing"],
            differing_px=sum(tally.differing_px for tally in self._samples.values()),
            compared_px=sum(tally.compared_px for tally in self._samples.values()),
            device=str(next(network.parameters()).device),
            precision="bfloat16" if torch.bfloat16 in {weight.dtype for weight in network.parameters()} else "float32",
            threads=torch.get_num_threads(),
            uncertain={
                sample: tally.uncertain_px / slide_px[sample] for sample, tally in self._samples.items() if tally.pixels
            },
            mismatch={
                sample: Mismatch(differing_px=tally.differing_px, compared_px=tally.compared_px).share
                for sample, tally in self._samples.items()
                if sample in blended
            },
        )
