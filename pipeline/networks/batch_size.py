"""How many pixels go through a network at once on a GPU: measured once for a network, a window and a card.

A card that gets too few waits between its kernels; from some size on, more pixels only take memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.base.files import identity_of, read_json, write_json
from pipeline.runtime.device import free_cached_memory, is_out_of_memory

log = logging.getLogger(__name__)

_FAST = 0.97  # of the highest speed: the smallest batch that has it is taken

Window = tuple[int, int, int]  # channels, rows, columns


def remembered_batch_px(file: Path, network: SegmentationModel, weights: str, window: Window, largest_px: int) -> int:
    """Return the result of :func:`fastest_batch_px`, from ``file`` if it was measured before under the same conditions.

    Parameters
    ----------
    file : Path
        JSON, pixels by condition; one that is damaged is written anew.
    weights : str
        SHA-256 of the network.
    """
    weight = next(network.parameters())
    card = torch.cuda.get_device_name(weight.device) if weight.is_cuda else str(weight.device)
    compiles = hasattr(network, "_orig_mod")  # of torch.compile
    key = identity_of([weights, card, str(weight.dtype), compiles, window, largest_px, torch.__version__])
    try:
        known = read_json(file)
    except SlidemillError:
        known = {}
    if not isinstance(known.get(key), int):
        known[key] = fastest_batch_px(network, window, largest_px)
        log.info("%s is fastest with %.1f Mpx at once, of up to %.1f", card, known[key] / 1e6, largest_px / 1e6)
        write_json(file, known)
    return int(known[key])


@torch.inference_mode()
def _seconds(network: SegmentationModel, shape: tuple[int, int, int, int]) -> float:
    """Return the time of a pass: the second one, since the first prepares for its shape."""
    weight = next(network.parameters())
    windows = torch.zeros(shape, dtype=weight.dtype, device=weight.device).to(memory_format=torch.channels_last)
    spent = 0.0
    for _ in range(2):
        start = time.perf_counter()
        network(windows)[0, 0, 0, 0].item()  # which waits for the device
        spent = time.perf_counter() - start
    return spent


def fastest_batch_px(
    network: SegmentationModel,
    window: Window,
    largest_px: int,
    *,
    seconds: Callable[[SegmentationModel, tuple[int, int, int, int]], float] = _seconds,
) -> int:
    """Try 1, 2, 4 ... windows at once; return the pixels of the smallest batch that is nearly as fast as the fastest.

    Parameters
    ----------
    network : SegmentationModel
        Ready for prediction (:func:`pipeline.prediction.loop.make_ready`), on a GPU.
    largest_px : int
        Most pixels of a batch; fewer if the memory of the device is too small. One window is always tried.
    seconds : callable
        Time of a pass, for a shape (N, channels, rows, columns).
    """
    _, rows, columns = window
    speeds: dict[int, float] = {}
    count = 1
    while count == 1 or count * rows * columns <= largest_px:
        try:
            spent = seconds(network, (count, *window))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            free_cached_memory(next(network.parameters()).device)
            break
        speeds[count * rows * columns] = count / spent
        count *= 2
    enough = _FAST * max(speeds.values(), default=0.0)
    return next((pixels for pixels, speed in speeds.items() if speed >= enough), rows * columns)
