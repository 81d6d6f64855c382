"""Networks on devices: batches of windows go in, their scores come out in the same order, from one device or several.

Several devices take batches from one queue, each when it is free. One that fails gives its batch back to the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.base.detector import DetectionModel
from models.base.heads import values_of
from models.base.interface import SegmentationModel
from pipeline.base.arrays import outside_the_heap
from pipeline.prediction.detections.windows import detect, logits_inside
from pipeline.prediction.forward import Forward, Windows, are_finite, crop_slices, label_windows, probabilities_of
from pipeline.prediction.results import Scores
from pipeline.prediction.windows import Batch, Place
from pipeline.runtime.device import is_out_of_memory
from pipeline.runtime.parallel_blocks import in_order

log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What is kept of the output of a network beside labels; its first channels are classes."""

    num_classes: int
    probabilities: bool
    heads: list[str]


class Scored(NamedTuple):
    """A batch with its scores, None if it has no window, and the seconds that a device computed them."""

    batch: Batch
    scores: Scores | None
    seconds: float


class Scorer(Protocol):
    """A device with a network: see :class:`Device`."""

    name: str
    workers: int

    def score(self, batch: Batch) -> Scored: ...


class Device:
    """A network on the device of its weights.

    Attributes
    ----------
    workers : int
        Threads that keep it busy. A GPU has two: one copies windows to it while it computes for the other.
    """

    def __init__(self, network: SegmentationModel, kept: Kept, *, now: Callable[[], float] = time.monotonic) -> None:
        self._device = next(network.parameters()).device
        self.name = str(self._device)
        is_gpu = self._device.type == "cuda"
        self.workers = 2 if is_gpu else 1
        self._copies = torch.cuda.Stream(self._device) if is_gpu else None  # type: ignore[no-untyped-call]
        self._network, self._forward, self._kept, self._now = network, Forward(network), kept, now
        self._turn = Lock()

    def score(self, batch: Batch) -> Scored:
        """Run a batch through the network; the thread waits until the scores are in the memory of the processor."""
        if not batch.places:
            return Scored(batch, None, 0.0)
        windows = self._copied(batch.windows)
        with self._turn, nullcontext() if self._copies is None else torch.cuda.device(self._device):
            start = self._now()
            scores = self._scores(windows, batch.places)
            return Scored(batch, scores, self._now() - start)

    def _scores(self, windows: Windows, places: list[Place]) -> Scores:
        """Run windows through the network. What is cut off is the same for all of them."""
        cut = places[0].tile.cut
        if not isinstance(self._network, DetectionModel):
            return _score(self._forward(windows, cut), places, self._kept)
        found = detect(self._network, windows)
        _, rows, columns = windows.shape
        logits = logits_inside(found, (rows, columns), cut, num_classes=self._kept.num_classes)
        return _score(torch.from_numpy(logits), places, self._kept)._replace(objects=found)

    def _copied(self, windows: Windows) -> Windows:
        """Copy windows to a GPU beside what it computes; if they do not fit there, :class:`Forward` divides them."""
        if self._copies is None:
            return windows
        try:
            with torch.cuda.stream(self._copies):
                copied = windows.on(self._device)
            self._copies.synchronize()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return windows
        return copied


def score_all(devices: Sequence[Scorer], batches: Iterable[Batch]) -> Generator[Scored, None, None]:
    """Yield the scores of all batches in their order; a few batches are ahead, as many as there are workers.

    Raises
    ------
    RuntimeError
        If the last device failed: what it raised.
    """
    workers = sum(device.workers for device in devices)
    if workers == 1:  # in the thread of the caller, whose heap holds the activations
        yield from map(devices[0].score, batches)
        return
    crew = _Crew(devices)
    yield from in_order((partial(crew.score, batch) for batch in batches), threads=workers, ahead=workers)


class _Crew:
    """Devices that work, each as often in the queue of idle ones as it has workers to spare."""

    def __init__(self, devices: Sequence[Scorer]) -> None:
        self._idle: SimpleQueue[Scorer | None] = SimpleQueue()
        self._working = list(devices)
        self._lock = Lock()
        self._last_error: RuntimeError | None = None
        for device in devices:
            for _ in range(device.workers):
                self._idle.put(device)

    def score(self, batch: Batch) -> Scored:
        """Return the scores by the first device that is idle; if it fails, by the next."""
        while device := self._idle.get():
            if device not in self._working:
                continue
            try:
                scored = device.score(batch)
            except RuntimeError as error:
                self._lose(device, error)
            else:
                self._idle.put(device)
                return scored
        self._idle.put(None)  # for the other threads
        assert self._last_error is not None
        raise self._last_error

    def _lose(self, device: Scorer, error: RuntimeError) -> None:
        """Take a device out of the crew; its other worker may have done so before."""
        with self._lock:
            if device not in self._working:
                return
            self._working.remove(device)
            self._last_error = error
            if self._working:
                log.warning("%s failed, and %d go on: %s", device.name, len(self._working), str(error).splitlines()[0])
            else:
                self._idle.put(None)


def _score(output: Tensor, places: list[Place], kept: Kept) -> Scores:
    """Return what is kept of the output of the network for a batch."""
    grid = places[0].plan.grid
    logits = output[:, : kept.num_classes]
    heads = values_of(output[:, kept.num_classes :].float()) if kept.heads else None
    if grid.overlap_px:
        channels = [probabilities_of(logits)] + ([] if heads is None else [heads.cpu().numpy()])
        return Scores(are_finite(output), None, None, np.concatenate(channels, axis=1))
    labels, uncertain, finite = label_windows(logits, [crop_slices(place.tile) for place in places])
    probabilities = probabilities_of(logits) if kept.probabilities else None
    levels = None if heads is None else _to_host((255 * heads).round().to(torch.uint8))
    if output.shape[1] > kept.num_classes:
        finite &= are_finite(output[:, kept.num_classes :])
    return Scores(finite, labels, uncertain, probabilities, levels)


def _to_host(values: Tensor) -> NDArray[Any]:
    """Copy small integers from the device into memory of their own: they are written while the network runs on."""
    host = outside_the_heap(tuple(values.shape), np.uint8)
    torch.from_numpy(host).copy_(values)
    return host
