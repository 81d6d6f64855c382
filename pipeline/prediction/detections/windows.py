"""Which objects a window contributes: those whose centre lies in what it writes, as parts of the slide.

Centres of one object differ between two windows by little. So a window also contributes objects whose centre lies
beyond by up to a quarter of their side: none is lost between two windows, and what both have is merged later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from models.base.detection import Detection, paint_logits
from models.base.detector import DetectionModel
from pipeline.base.arrays import bands
from pipeline.base.errors import SlidemillError
from pipeline.prediction.forward import Windows, to_device
from pipeline.runtime.device import free_cached_memory, is_out_of_memory
from pipeline.tiling.grid import Cut, Tile

BEYOND = 0.25  # of the side of an object


@torch.inference_mode()
def detect(network: DetectionModel, windows: Windows) -> list[list[Detection]]:
    """Return the objects of each window; of half of them at a time if the memory is too small.

    Raises
    ------
    SlidemillError
        If a single window does not fit into the memory of the device.
    """
    weight = next(network.parameters())
    try:
        return network.detect(to_device(windows, weight))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free_cached_memory(weight.device)
    count, rows, columns = windows.shape
    if count == 1:
        raise SlidemillError(
            f"a window of {rows} x {columns} px does not fit into the memory of {weight.device}; "
            "lower tiling.memory_mb or tiling.tile_px"
        )
    return [found for half in bands(count, -(-count // 2)) for found in detect(network, windows.some(half))]


def logits_inside(
    found: Iterable[list[Detection]], shape: tuple[int, int], cut: Cut, *, num_classes: int
) -> NDArray[np.float32]:
    """Return the logits of windows of a ``shape`` without what is ``cut``, (N, classes, rows, columns)."""
    rows, columns = slice(cut.top, shape[0] - cut.bottom), slice(cut.left, shape[1] - cut.right)
    return np.stack([paint_logits(objects, shape, num_classes=num_classes)[:, rows, columns] for objects in found])


def contributed(found: Iterable[Detection], tile: Tile, shape: tuple[int, int]) -> Iterator[Detection]:
    """Yield the objects of a window that it contributes to a slide of this shape, cut to the slide."""
    for one in found:
        placed = one.moved(tile.read.top, tile.read.left).within(shape)
        if placed is not None and _is_near(placed, tile):
            yield placed


def _is_near(one: Detection, tile: Tile) -> bool:
    """Return whether the centre of an object is in the write region of a tile, or beyond it by a part of its side."""
    starts, ends = (tile.write.top, tile.write.left), (tile.write.bottom, tile.write.right)
    return all(
        start - BEYOND * side <= centre < end + BEYOND * side
        for start, end, centre, side in zip(starts, ends, one.centre, one.mask.shape, strict=True)
    )
