"""Reading of windows: they are grouped into batches, and read ahead in threads, a window each.

Which windows share a batch depends on the plans only. If a slide turns out to be damaged, it becomes
:class:`Unreadable`; the other windows of the batch are predicted.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import numpy as np
import torch

from pipeline.base.arrays import outside_the_heap
from pipeline.base.errors import SlideError
from pipeline.prediction.forward import Windows
from pipeline.runtime.parallel_blocks import in_order
from pipeline.slides.intensity import normalize
from pipeline.slides.planes import Pixels
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.grid import Tile
from pipeline.tiling.mirror_padding import read_mirrored
from pipeline.tiling.plan import SlidePlan

_SMALL_BYTES = 2  # of an integer that float32 has exactly


@dataclass(frozen=True, kw_only=True)
class Place:
    """A tile of a slide."""

    sample: str
    plan: SlidePlan
    tile: Tile


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A slide that could be planned but not read."""

    sample: str
    error: SlideError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of one shape, and unreadable slides."""

    places: list[Place]
    windows: Windows
    unreadable: list[Unreadable]


def read_batches(
    slides: Iterable[tuple[str, SlidePlan]],
    *,
    batch_px: int,
    mixed: bool,
    memory_mb: int,
    threads: int,
    ahead: int,
) -> Generator[Batch, None, None]:
    """Read the windows of slides (sample id and plan), one slide after the other.

    Parameters
    ----------
    batch_px : int
        Most pixels of a batch; it has at least one window.
    mixed : bool
        Whether windows of different slides may share a batch.
    memory_mb : int
        Memory limit of decoding one piece of a slide.
    threads : int
        Windows that are read at the same time.
    ahead : int
        Batches that are read while one is in use.
    """
    with _OpenSlides(memory_mb) as opened, ThreadPoolExecutor(threads) as readers:
        tasks = (partial(_read, opened, readers, places) for places in grouped(slides, batch_px, mixed=mixed))
        yield from in_order(tasks, threads=max(1, ahead), ahead=ahead)


def grouped(slides: Iterable[tuple[str, SlidePlan]], batch_px: int, *, mixed: bool) -> Iterator[list[Place]]:
    """Group consecutive windows of one shape and one cut, if ``mixed`` also those of several slides."""
    group: list[Place] = []
    for sample, plan in slides:
        if group and not mixed:
            yield group
            group = []
        for tile in plan.tiles():
            rows, columns = tile.read.shape
            alike = not group or (tile.read.shape, tile.cut) == (group[0].tile.read.shape, group[0].tile.cut)
            if not alike or (group and (len(group) + 1) * rows * columns > batch_px):
                yield group
                group = []
            group.append(Place(sample=sample, plan=plan, tile=tile))
    if group:
        yield group


class _OpenSlides:
    """Slides that are being read. Each is opened once and closed after its last window; an error is reported once."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._open: dict[str, Future[tuple[Slide, ExitStack]]] = {}
        self._left: dict[str, int] = {}
        self._failed: set[str] = set()

    def __enter__(self) -> _OpenSlides:
        return self

    def __exit__(self, *_: object) -> None:
        for sample in list(self._open):
            self._close(sample)

    def read(self, place: Place) -> Pixels | Unreadable | None:
        """Return the pixels of a window, (channels, rows, columns), or the reason if it cannot be read.

        None if the reason was returned before.
        """
        with self._lock:
            self._left.setdefault(place.sample, place.plan.count)
            if place.sample in self._failed:
                return None
        try:
            pixels = read_mirrored(self._slide(place).read, place.plan.grid.shape, place.tile.read)
            if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():  # the plan of a large slide saw a sample
                raise SlideError(f"{place.plan.slide}: pixels are NaN or infinite; replace them")
            return pixels
        except SlideError as error:
            with self._lock:
                known = place.sample in self._failed
                self._failed.add(place.sample)
            return None if known else Unreadable(sample=place.sample, error=error)
        finally:
            with self._lock:
                self._left[place.sample] -= 1
                if self._left[place.sample] == 0:
                    self._close(place.sample)

    def _slide(self, place: Place) -> Slide:
        """Return the slide of a window; the first thread that needs it opens it, while others open other slides."""
        plan = place.plan
        with self._lock:
            is_first = place.sample not in self._open
            opening = self._open.setdefault(place.sample, Future())
        if is_first:
            stack = ExitStack()
            try:
                slide = stack.enter_context(open_slide(plan.slide, memory_mb=self._memory_mb, view=plan.view))
                opening.set_result((slide, stack))
            except BaseException as error:  # else the others would wait for ever
                opening.set_exception(error)
        slide, _ = opening.result()
        if slide.shape != plan.grid.shape:
            raise SlideError(f"{plan.slide}: {slide.shape} px, planned with {plan.grid.shape}; run again")
        return slide

    def _close(self, sample: str) -> None:
        opening = self._open.pop(sample, None)
        if opening is not None and opening.exception() is None:
            _, stack = opening.result()
            stack.close()


def _read(opened: _OpenSlides, readers: ThreadPoolExecutor, places: list[Place]) -> Batch:
    """Read the windows of one batch."""
    read = list(zip(places, readers.map(opened.read, places), strict=True))
    good = [(place, pixels) for place, pixels in read if isinstance(pixels, np.ndarray)]
    return Batch(
        places=[place for place, _ in good],
        windows=_gather(good, places[0]),
        unreadable=[reason for _, reason in read if isinstance(reason, Unreadable)],
    )


def _gather(read: list[tuple[Place, Pixels]], first: Place) -> Windows:
    """Return windows side by side, their channels interleaved, in memory that is not of the heap.

    Small integers are normalized on the device, which computes while the next ones are copied to it. Others are
    normalized here, if need be in float64.
    """
    shape = len(read), *first.tile.read.shape, len(first.plan.view.channels)
    (dtype, *others) = {pixels.dtype for _, pixels in read} or {np.dtype(np.float32)}
    if others or dtype.kind == "f" or dtype.itemsize > _SMALL_BYTES:
        windows = outside_the_heap(shape, np.float32)
        for (place, pixels), window in zip(read, windows, strict=True):
            normalize(pixels, place.plan.statistics, window.transpose(2, 0, 1))
        return Windows(pixels=torch.from_numpy(windows))
    windows = outside_the_heap(shape, dtype)
    for (_, pixels), window in zip(read, windows, strict=True):
        window[:] = pixels.transpose(1, 2, 0)
    statistics = [place.plan.statistics for place, _ in read]
    low, scale = (
        torch.tensor([[value(channel) for channel in channels] for channels in statistics], dtype=torch.float32)
        for value in (attrgetter("low"), attrgetter("scale"))
    )
    return Windows(pixels=torch.from_numpy(windows), low=low, scale=scale)
