"""Windows of slides on their way to the network: read ahead in a thread, put together into batches.

A slide that turns out to be damaged while it is read becomes an :class:`Unreadable` in the stream; the others go on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SlideError
from pipeline.intensity import normalize
from pipeline.plan import SlidePlan
from pipeline.slides import open_slide
from pipeline.tiling import Tile, read_mirrored

_READ_AHEAD = 8  # windows decoded while the network is busy
_BATCH_PX = 640**2  # smaller windows go through the network together, up to about this many pixels

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Window:
    """The pixels of one tile, (channels, rows, columns) float32, normalized."""

    sample: str
    tile: Tile
    pixels: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A slide that could be planned but not read."""

    sample: str
    error: str


def read_windows(slides: Iterable[tuple[str, SlidePlan]], *, memory_mb: int) -> Iterator[Window | Unreadable]:
    """Read the windows of slides (sample id and plan), one slide after the other."""
    for sample, plan in slides:
        try:
            with open_slide(plan.slide, memory_mb=memory_mb) as slide:
                if slide.shape != plan.grid.shape:
                    raise SlideError(f"{plan.slide}: {slide.shape} px, planned with {plan.grid.shape}; run again")
                for tile in plan.tiles():
                    pixels = read_mirrored(slide.read, slide.shape, tile.read)[plan.channels]
                    if not np.isfinite(pixels).all():  # the plan may have seen a coarser level only
                        raise SlideError(f"{plan.slide}: pixels are NaN or infinite; replace them")
                    yield Window(sample=sample, tile=tile, pixels=normalize(pixels, plan.statistics))
        except SlideError as error:
            yield Unreadable(sample=sample, error=str(error))


def batched(windows: Iterable[Window | Unreadable]) -> Iterator[list[Window] | Unreadable]:
    """Put consecutive windows of one shape together, also of several slides."""
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


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Run an iterator in a thread of its own, a few items ahead, so that reading and computing overlap.

    What the iterator raises is raised here, after the items before it.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=_READ_AHEAD)

    def fill() -> None:
        try:
            for item in items:
                waiting.put(item)
            waiting.put(_End())
        except BaseException as error:
            waiting.put(_End(error))

    threading.Thread(target=fill, daemon=True).start()
    while not isinstance(item := waiting.get(), _End):
        yield item
    if item.error is not None:
        raise item.error


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def _is_full(group: list[Window]) -> bool:
    _, rows, columns = group[0].pixels.shape
    return bool((len(group) + 1) * rows * columns > _BATCH_PX)
