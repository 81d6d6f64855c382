"""How many objects differ between tiles and one pass over the whole: measured, since detections compete in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.base.detection import Detection
from models.base.detector import DetectionModel
from models.base.geometry import round_up
from pipeline.prediction.detections.merge import SAME_IOU, mask_iou, merged
from pipeline.prediction.detections.windows import contributed, detect
from pipeline.prediction.forward import Windows
from pipeline.tiling.grid import Grid
from pipeline.tiling.mirror_padding import read_mirrored


def differing_objects(network: DetectionModel, image: NDArray[np.float32], grid: Grid) -> float:
    """Return the share of objects, of tiles and of one pass together, that the other one does not have.

    Two objects are the same if their masks have an intersection over union of at least 0.5. 0 without any object.

    Parameters
    ----------
    network : DetectionModel
        In evaluation mode.
    image : (channels, rows, columns) float32 array
        Normalized, of the shape of ``grid``.
    grid : Grid
        Of several tiles.
    """
    rows, columns = (round_up(length, grid.stride_px) for length in grid.shape)
    tiled, whole = (objects_of(network, image, one) for one in (grid, replace(grid, tile=(rows, columns))))
    total = len(tiled) + len(whole)
    return 1 - 2 * _count_same(tiled, whole) / total if total else 0.0


def objects_of(network: DetectionModel, image: NDArray[np.float32], grid: Grid) -> list[Detection]:
    """Return the objects of an image tile by tile, merged."""
    found = list[Detection]()
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], grid.shape, tile.read)
        found += contributed(detect(network, Windows.normalized(window[None]))[0], tile, grid.shape)
    return merged(found)


def _count_same(ones: Sequence[Detection], others: Sequence[Detection]) -> int:
    """Return the number of pairs; in each list, no two objects are the same."""
    left, count = list(others), 0
    for one in ones:
        ious = [mask_iou(one, other) for other in left]
        if ious and max(ious) >= SAME_IOU:
            left.pop(int(np.argmax(ious)))
            count += 1
    return count
