"""Prediction of slides: batches of windows are read ahead, run through the network, and written in a thread.

Reading, network and writing overlap, so that a run takes as long as the slowest of them, the network. The time that it
waits for the others is measured. Slides are complete one after the other, while the loop goes on with the next.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import torch

from models.base.bfloat16 import convert_to_bfloat16
from models.base.detector import DetectionModel
from models.base.folding import fold_batch_norm
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlideError
from pipeline.networks.model_card import ModelCard
from pipeline.prediction.devices import Device, Kept, Scored, Scorer, score_all
from pipeline.prediction.measurements import Measurements
from pipeline.prediction.results import SlideResult, Target
from pipeline.prediction.resume import PARTS
from pipeline.prediction.windows import Batch, read_batches
from pipeline.runtime.device import allow_tf32, computes_tf32, is_tf32_allowed
from pipeline.runtime.job_limits import memory_limit
from pipeline.tiling.memory_budget import AHEAD, budget_within, largest_window_px
from pipeline.tiling.plan import SlidePlan

log = logging.getLogger(__name__)

_NOT_FINITE = "{slide}: the network returns values that are not finite; check the pixel values, or train it again"
_BATCH_PX = {"cpu": 2**20, "cuda": 2**24, "mps": 2**22}  # where it was not measured

Item = TypeVar("Item")
Value = TypeVar("Value")
Results = dict[str, SlideResult]


class Finished(NamedTuple):
    """A slide that the loop is through with: what was measured on it, or why it cannot be read."""

    sample: str
    outcome: Measurements | SlideError


def make_ready(network: SegmentationModel, device: torch.device, precision: str) -> None:
    """Move a network to its device and precision, and fold batch normalization into convolutions."""
    log.info("%d batch normalizations folded into convolutions", fold_batch_norm(network))
    if isinstance(network, DetectionModel) and precision != "float32":
        log.info("%s predicts in float32: %s is too coarse for boxes", network.name, precision)
        precision = "float32"
    allow_tf32(precision == "tf32")
    if precision == "bfloat16":
        convert_to_bfloat16(network)
    network.to(device).to(memory_format=torch.channels_last)


def batch_limit_px(window_px: int, device: torch.device, measured_px: int | None = None) -> int:
    """Return the most pixels of a batch, if memory allows ``window_px``."""
    return min(window_px, measured_px or _BATCH_PX[device.type])


def segment_slides(
    networks: Sequence[SegmentationModel],
    card: ModelCard,
    targets: Sequence[Target],
    *,
    probabilities: bool,
    heads: bool = False,
    memory_mb: int,
    threads: int,
    batch_px: int | None = None,
) -> Generator[Finished, None, None]:
    """Predict slides, and yield each as soon as its file is complete, or as it turns out that it cannot be read.

    Slides that an earlier run did not complete continue where it was interrupted; so will those of this run if it ends
    early. On the processor, windows of different slides do not go through the network together, so that a prediction
    is the same bit for bit whoever shares the job; on a GPU they do, and logits may differ by rounding.

    Parameters
    ----------
    networks : sequence of SegmentationModel
        The same network in evaluation mode on each device that works. Results are written in the order of windows, and
        equal those of one device.
    targets : sequence of Target
        Slides, and the files to write.
    probabilities, heads : bool
        Whether they are kept.
    memory_mb : int
        Memory limit of reading and network together; the limit of this process holds too.
    threads : int
        Half of them read; all, if the network is on a GPU.
    batch_px : int or None
        Most pixels that go through the network at once; None: what suits most devices of this kind.

    Raises
    ------
    ConfigError
        If planned windows do not fit into the memory of this process.
    SlidemillError
        If a window does not fit into that of the device.
    StorageError
        If a file cannot be written.
    """
    device = next(networks[0].parameters()).device
    if device.type == "cpu":  # a GPU holds the windows in its own memory
        grids = (target.plan.grid for target in targets)
        memory_mb = budget_within(memory_limit(), card, grids, memory_mb=memory_mb)
    half = torch.bfloat16 in {weight.dtype for weight in networks[0].parameters()}
    precision = "bfloat16" if half else "tf32" if is_tf32_allowed() and computes_tf32(device) else "float32"
    with ExitStack() as opened:
        kept = Kept(len(card.classes), probabilities, list(card.heads) if heads else [])
        make = partial(
            SlideResult,
            num_classes=kept.num_classes,
            probabilities=kept.probabilities,
            heads=kept.heads,
            objects=isinstance(networks[0], DetectionModel),
            opened=opened,
        )
        results = {target.sample: make(target) for target in targets}
        batches = read_batches(
            list(_remaining(results)),
            batch_px=batch_limit_px(largest_window_px(card, memory_mb), device, batch_px),
            mixed=device.type != "cpu",
            memory_mb=memory_mb,
            threads=max(1, threads // 2) if device.type == "cpu" else threads,
            ahead=AHEAD * len(networks),
        )
        opened.enter_context(closing(batches))  # now, not when the garbage collector finds them: slides are open
        devices = [Device(network, kept) for network in networks]
        for result in opened.enter_context(closing(_segment(devices, batches, results))):
            outcome = result.error or result.measurements(
                device=str(device), devices=len(networks), precision=precision, threads=torch.get_num_threads()
            )
            yield Finished(result.target.sample, outcome)


def _remaining(results: Results) -> Iterator[tuple[str, SlidePlan]]:
    """Yield the slides that have windows to do, each with the plan of these only."""
    for sample, result in results.items():
        if windows := result.progress.windows:
            log.info("%s: continuing after %d of %d windows", sample, windows, result.target.plan.count)
        if not result.is_complete:
            yield sample, result.remaining()


def _segment(
    devices: Sequence[Scorer], batches: Iterable[Batch], results: Results
) -> Generator[SlideResult, None, None]:
    """Run all batches through the network, and write the results; yield those that are through."""
    for result in [result for result in results.values() if result.is_complete]:  # all of it is glass
        result.complete()
        yield result
    clock, last = Clock(), None
    scores = score_all(devices, clock.reading(batches))
    with write_behind(partial(_write, results)) as put, closing(scores):
        for scored in scores:
            last = scored.batch
            spent = clock.lap(scored.seconds / len(devices))
            with clock.measure("writing"):
                through = put((scored, spent))
            yield from through or ()
        with clock.measure("writing"):
            through = put(None)
        if last is not None:
            _share(results, last, clock.lap(0.0))
        yield from through or ()


def _write(results: Results, done: tuple[Scored, dict[str, float]]) -> list[SlideResult]:
    """Write a batch; record what is done of each slide, or complete it. Return the slides that are through."""
    (batch, scores, _), spent = done
    through = []
    for unreadable in batch.unreadable:
        results[unreadable.sample].give_up(unreadable.error)
        through.append(results[unreadable.sample])
    _share(results, batch, spent)
    for sample, places in groupby(enumerate(batch.places), key=lambda numbered: numbered[1].sample):
        result = results[sample]
        if result.error:  # another thread read this window before it turned out
            continue
        assert scores is not None
        windows = list(places)
        if not scores.finite[[index for index, _ in windows]].all():
            result.give_up(SlideError(_NOT_FINITE.format(slide=result.target.plan.slide)))
            through.append(result)
            continue
        for index, place in windows:
            result.write(place.tile, scores, index)
        if result.is_complete:
            result.complete()
            through.append(result)
        else:
            result.record()
    return through


def _share(results: Results, batch: Batch, spent: dict[str, float]) -> None:
    """Divide the seconds of a batch among its slides, by pixels."""
    pixels = [math.prod(place.tile.part.shape) for place in batch.places]
    for place, count in zip(batch.places, pixels, strict=True):
        results[place.sample].progress.add_time(spent, count / sum(pixels))


@contextmanager
def write_behind(consume: Callable[[Item], Value]) -> Iterator[Callable[[Item | None], Value | None]]:
    """Run ``consume`` in a thread, at most one item behind; its exceptions are raised by the next call.

    Yields a function that takes an item, waits for the previous one, and returns its result; with ``None`` it only
    waits.
    """
    with ThreadPoolExecutor(1) as pool:
        running: Future[Value] | None = None

        def put(item: Item | None) -> Value | None:
            nonlocal running
            result = None if running is None else running.result()
            running = None if item is None else pool.submit(consume, item)
            return result

        yield put


class Clock:
    """Seconds that the loop spent in each part, and in total, since the last lap."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = now()
        self._spent = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        before = self._now()
        yield
        self._spent[part] += self._now() - before

    def reading(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items; waiting for them is reading."""
        stream, end = iter(items), object()
        while True:
            with self.measure("reading"):
                item: Any = next(stream, end)
            if item is end:
                return
            yield item

    def lap(self, network_s: float) -> dict[str, float]:
        """Return the seconds since the last lap, those of the network as given, and begin the next."""
        now = self._now()
        spent = self._spent | {"wall": now - self._start, "network": network_s}
        self._start, self._spent = now, dict.fromkeys(PARTS, 0.0)
        return spent
