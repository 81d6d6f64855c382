"""Batches without end for a training: made ahead by other processes, the same ones whoever makes them.

Batch number j is made of the patches [j B, (j + 1) B). Of P processes that train together, process r has the r-th part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.base.errors import SlidemillError
from pipeline.training.data.patches import Patch


class PatchNumbers(Sampler[list[int]]):
    """The numbers of the patches of each batch from ``first`` on, for process ``rank`` of ``processes``."""

    def __init__(self, *, first: int, batch_size: int, rank: int, processes: int) -> None:
        self.first, self.batch_size, self.rank, self.processes = first, batch_size, rank, processes

    def __iter__(self) -> Iterator[list[int]]:
        part = self.batch_size // self.processes
        for batch in count(self.first):
            start = batch * self.batch_size + self.rank * part
            yield list(range(start, start + part))


class Batches(Iterator[list[Tensor]]):
    """Image, target and weights of one batch after the other, on the device of a process.

    Attributes
    ----------
    waited_s
        How long :func:`next` has waited for batches; the first one, for which the workers had to start, not counted.
    """

    def __init__(self, fabric: Fabric, patches: Dataset[Patch], *, batch_size: int, first: int) -> None:
        on_gpu = fabric.device.type != "cpu"
        numbers = PatchNumbers(first=first, batch_size=batch_size, rank=fabric.global_rank, processes=fabric.world_size)
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
        except SlidemillError as error:  # of a worker: the traceback is part of its message
            raise SlidemillError(str(error).rpartition("Error: ")[2]) from error
        if self._started:
            self.waited_s += time.monotonic() - begin
        self._started = True
        return [self._fabric.to_device(part) for part in batch]


def worker_count(threads: int, *, on_gpu: bool) -> int:
    """Return how many processes make patches beside one that trains with ``threads`` threads.

    Beside a GPU all threads but one are free for it; where the network computes on the same threads, a patch costs a
    few per cent of its step, and one worker for every four threads is enough.
    """
    return max(1, threads - 1 if on_gpu else threads // 4)
