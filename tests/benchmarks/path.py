"""The path beside the network: slides are read, normalized, labelled and written, by a network that returns at once.

First they are read alone, as for a GPU, by all threads; then everything is done on the processor.
``per_core`` is Mpx per second of processor time, ``speed`` per second that passed, both of the fastest of three runs:
in the first ones the heap grows. Steps are ms of processor time per Mpx of the slide; writing is what is left, with
compression and records of progress. With a GPU, normalizing and labelling are its work. Slides have 8,192² px: two
types of numbers, compressed and not, and a slide of a scanner (JPEG in colour), which is a small one repeated.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import tifffile
import torch
from torch import Tensor, nn

from models.base.geometry import Geometry
from pipeline.base.arrays import blocks
from pipeline.networks.model_card import ModelCard
from pipeline.prediction import devices, forward, windows
from pipeline.prediction.loop import segment_slides
from pipeline.prediction.results import Target
from pipeline.runtime.device import set_up_process
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.formats import tiff_tiles
from pipeline.tiling.memory_budget import AHEAD
from pipeline.tiling.mirror_padding import mirror
from pipeline.tiling.plan import SlidePlan
from pipeline.tiling.plan_slide import plan_slide
from tests.benchmarks.common import THREADS, fresh_folder, micrographs, say, say_machine
from tests.support.networks import CARD
from tests.support.paths import DATA

MEMORY_MB = 4000
STEPS: dict[str, list[tuple[Any, str]]] = {
    "decoding": [(tiff_tiles._Tiles, "_read_tile")],
    "reading": [(windows._OpenSlides, "read"), (windows, "_gather")],
    "normalizing": [(forward, "to_device")],
    "labelling": [(devices, "_score")],
}
TILE_PX = 512
TIMES = 3


def main(side: int = 8192) -> None:
    """Print the machine, then every figure."""
    say_machine()
    with fresh_folder():
        for name, channels in write_slides(side):
            card = replace(CARD, in_channels=channels)
            view = ImageConfig(channels=list(range(channels)))
            config = TileConfig(image=view, tile_px=None, mirror_px=16, skip_glass=False)
            plan = plan_slide(Path(f"{name}.tif"), card, MEMORY_MB, config)
            for threads in sorted({1, THREADS}):
                set_up_process(threads)
                bench(name, plan, card, threads)


def write_slides(side: int) -> Iterator[tuple[str, int]]:
    """Write slides; yield the name and the channels of each."""
    for dtype in (np.uint8, np.uint16):
        for compression in ("zlib", None):
            name = f"{np.dtype(dtype)} {compression or 'uncompressed'}"
            write_grey(Path(f"{name}.tif"), side, dtype, compression)
            yield name, 1
    write_svs(Path("jpeg svs.tif"), DATA / "wsi" / "CMU-1-Small-Region.svs", times=max(1, side // 2560))
    yield "jpeg svs", 3


def write_grey(path: Path, side: int, dtype: type, compression: str | None) -> None:
    """Write micrographs, mirrored to the side; of 16 bits, a camera's 12 with its noise."""
    pixels = micrographs().astype(dtype)
    if dtype == np.uint16:
        pixels = pixels * 16 + np.random.default_rng(0).integers(0, 16, pixels.shape, dtype=dtype)
    index = mirror(0, side, len(pixels))
    tiles = (pixels[index[rows]][:, index[columns]] for rows, columns in blocks((side, side), (TILE_PX, TILE_PX)))
    tifffile.imwrite(path, tiles, shape=(side, side), dtype=dtype, tile=(TILE_PX, TILE_PX), compression=compression)


def write_svs(path: Path, small: Path, *, times: int) -> None:
    """Write a slide of a scanner whose tiles are those of a small one, repeated."""
    with tifffile.TiffFile(small) as tiff:
        page = tiff.pages[0]
        rows, columns = (length // side for length, side in zip(page.shape[:2], page.chunks[:2], strict=True))
        across = page.chunked[1]
        stored = [
            (page.dataoffsets[row * across + column], page.databytecounts[row * across + column])
            for row in range(rows)
            for column in range(columns)
        ]
        tiles = [tiff.filehandle.seek(start) and tiff.filehandle.read(size) for start, size in stored]
        order = [
            tiles[row % rows * columns + column % columns]
            for row in range(times * rows)
            for column in range(times * columns)
        ]
        tifffile.imwrite(
            path,
            iter(order),
            shape=(times * rows * page.chunks[0], times * columns * page.chunks[1], 3),
            dtype=np.uint8,
            tile=page.chunks[:2],
            compression="jpeg",
            photometric=page.photometric,
            jpegtables=page.jpegtables,
            description=page.description,
            metadata=None,
        )


class AtOnce(nn.Module):
    """A network with the geometry of U-Net that returns the same logits for each window of a shape."""

    geometry: Geometry = CARD.geometry
    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, 2, rows, columns) logits."""
        return _logits(len(image), *image.shape[2:])


@cache
def _logits(count: int, rows: int, columns: int) -> Tensor:
    """Return logits whose labels look like a mask of membranes."""
    pixels = torch.from_numpy(micrographs()).float()[mirror(0, rows, 1024)][:, mirror(0, columns, 1024)]
    logits = torch.stack([(pixels - 96) / 16, (96 - pixels) / 16])[None].repeat(count, 1, 1, 1)
    return logits.to(memory_format=torch.channels_last)


def bench(name: str, plan: SlidePlan, card: ModelCard, threads: int) -> None:
    """Print how fast a slide is read for a GPU, which does the rest, and how fast it is predicted on the processor."""
    pixels = math.prod(plan.grid.shape) / 1e6

    def read() -> None:
        limits = {"batch_px": 2**24, "mixed": True, "memory_mb": MEMORY_MB}
        for _ in windows.read_batches([("a", plan)], **limits, threads=threads, ahead=AHEAD):
            pass

    def predict() -> None:
        path = Path("prediction.zarr.zip")
        target = Target(sample="a", plan=plan, path=path, identity="")
        with torch.inference_mode():
            list(segment_slides([AtOnce()], card, [target], probabilities=False, memory_mb=MEMORY_MB, threads=threads))
        path.unlink()

    predict()  # warm up
    about = {"slide": name, "threads": threads, "redundancy": plan.grid.redundancy}
    for part, work in (("reading", read), ("all", predict)):
        passed, used = (min(times) for times in zip(*(times_of(work) for _ in range(TIMES)), strict=True))
        say("path", part=part, **about, speed=pixels / passed, per_core=pixels / used)
    fastest = min((steps_of(predict) for _ in range(TIMES)), key=lambda steps: steps["all"])
    spent = {step: 1000 * seconds / pixels for step, seconds in fastest.items()}
    say("path", part="steps", **about, **spent)


def times_of(work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds that passed, and those of processors, during one call."""
    passed, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - passed, time.process_time() - used


def steps_of(work: Callable[[], None]) -> dict[str, float]:
    """Return the seconds of processor time of each step of a prediction; those of reading include decoding."""
    spent = dict.fromkeys(STEPS, 0.0)

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*values, **options)
            finally:
                spent[step] += time.thread_time() - start

        return call

    with ExitStack() as stack:
        for step, parts in STEPS.items():
            for place, name in parts:
                stack.enter_context(patch.object(place, name, timed(step, getattr(place, name))))
        start = time.process_time()
        work()
        total = time.process_time() - start
    return spent | {"writing": total - sum(spent.values()) + spent["decoding"], "all": total}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
