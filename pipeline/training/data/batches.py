"""An endless series of training batches, made ahead of time by worker processes.

Batch j holds the patches [j B, (j + 1) B), whichever worker makes it. If P processes train together, process r gets the
r-th part of every batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import ResolvedConfig
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.patches import Patch, RandomPatches


def patch_numbers(*, first: int, batch_size: int, rank: int, processes: int) -> Iterator[list[int]]:
    """Yield the numbers of the patches of each batch from ``first`` on, for process ``rank`` of ``processes``."""
    part = batch_size // processes
    for batch in count(first):
        start = batch * batch_size + rank * part
        yield list(range(start, start + part))


class Batches(Iterator[list[Tensor]]):
    """Image, target and maps of one batch after the other, on the device of this process.

    Attributes
    ----------
    waited_s
        Time that :func:`next` has waited for batches, without the first, for which the workers had to start.
    """

    def __init__(self, fabric: Fabric, patches: Dataset[Patch], *, batch_size: int, first: int) -> None:
        on_gpu = fabric.device.type != "cpu"
        numbers = patch_numbers(
            first=first, batch_size=batch_size, rank=fabric.global_rank, processes=fabric.world_size
        )
        loader = DataLoader(
            patches,
            batch_sampler=numbers,
            num_workers=worker_count(torch.get_num_threads(), on_gpu=on_gpu),
            pin_memory=fabric.device.type == "cuda",
        )
        self._fabric = fabric
        self._batches = iter(loader)
        self._started = False
        self.waited_s = 0.0

    def __next__(self) -> list[Tensor]:
        begin = time.monotonic()
        try:
            batch = next(self._batches)
        except SlidemillError as error:  # raised in a worker: its message contains the traceback
            raise SlidemillError(str(error).rpartition("Error: ")[2]) from error
        if self._started:
            self.waited_s += time.monotonic() - begin
        self._started = True
        return [self._fabric.to_device(part) for part in batch]


def training_batches(fabric: Fabric, images: list[Annotated], config: ResolvedConfig, *, first: int) -> Batches:
    """Return the batches of a training from number ``first`` on."""
    patches = RandomPatches(
        images, patch_px=config.patch_px, config=config.augmentation, seed=config.seed, balance=config.balance
    )
    return Batches(fabric, patches, batch_size=config.batch_size, first=first)


def worker_count(threads: int, *, on_gpu: bool) -> int:
    """Return the number of processes that make patches for one that trains with ``threads`` threads.

    With a GPU, all threads but one are free for them. On a CPU, making a patch takes a few per cent of its step, and
    one worker per four threads is enough.
    """
    return max(1, threads - 1 if on_gpu else threads // 4)
