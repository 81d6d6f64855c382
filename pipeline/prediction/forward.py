"""Tiled inference: windows go in, logits of their write regions come out, equal to those of one pass over the slide.

They are equal because windows start on multiples of the stride, extend at least the context beyond what they write, and
are normalized with the statistics of the whole slide (tested in ``tests/pipeline/prediction/test_forward.py``).
Windows of networks with global context cannot be equal: they are blended.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.base.geometry import Geometry
from models.base.interface import SegmentationModel
from pipeline.base.arrays import Array
from pipeline.base.errors import SlidemillError
from pipeline.prediction.blending import Blend
from pipeline.tiling.grid import Grid, Tile
from pipeline.tiling.mirror_padding import read_mirrored

log = logging.getLogger(__name__)

_NO_MEMORY = "can't allocate memory"  # message of torch on a CPU, for which it has no class of error
_UNCERTAIN = math.log(3)  # difference of logits: of two classes, the better one has a probability below 0.75


@torch.inference_mode()
def logits_of(network: SegmentationModel, windows: Tensor, cut_px: int) -> Tensor:
    """Run windows of one shape through the network and cut off their context.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode.
    windows : (N, channels, rows, columns) float tensor
        Normalized pixels; rows and columns are multiples of the stride.
    cut_px : int
        Pixels to cut off on each side: the halo, less what is kept for blending.

    Returns
    -------
    (N, classes, rows - 2 cut_px, columns - 2 cut_px) float tensor
    """
    geometry = network.geometry
    rows, columns = windows.shape[-2:]
    logits: Tensor = network(windows[..., : geometry.input_px(rows), : geometry.input_px(columns)])
    first = cut_px - geometry.margin_px
    return logits[..., first : first + rows - 2 * cut_px, first : first + columns - 2 * cut_px]


def logits_within_memory(network: SegmentationModel, windows: Tensor, cut_px: int) -> Tensor:
    """Like :func:`logits_of`, but in smaller pieces if the memory of the device is too small.

    Batches are halved, then single windows: into two that overlap by what is cut off, which is exact. Windows of
    networks with global context are not divided.

    Raises
    ------
    SlidemillError
        If the smallest piece does not fit.
    """
    try:
        return logits_of(network, windows, cut_px)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
            raise
        pieces = _halves(windows, network.geometry, cut_px)
        if pieces is None:
            rows, columns = windows.shape[-2:]
            raise SlidemillError(
                f"a window of {rows} x {columns} px does not fit into the memory of {windows.device}; "
                "lower tiling.memory_mb or tiling.tile_px"
            ) from None
    log.warning("%s: not enough memory for windows %s; they are halved", windows.device, tuple(windows.shape))
    halves, axis = pieces
    return torch.cat([logits_within_memory(network, half, cut_px) for half in halves], dim=axis)


def _halves(windows: Tensor, geometry: Geometry, cut_px: int) -> tuple[list[Tensor], int] | None:
    """Return two halves of a batch, or of its only window, and the axis along which their logits are joined."""
    if len(windows) > 1:
        return list(windows.tensor_split(2)), 0
    axis = 2 if windows.shape[2] >= windows.shape[3] else 3
    written = windows.shape[axis] - 2 * cut_px
    first = written // 2 // geometry.stride_px * geometry.stride_px
    if first == 0 or geometry.context_px is None:
        return None
    around = 2 * cut_px
    return [windows.narrow(axis, 0, first + around), windows.narrow(axis, first, written - first + around)], axis


def predict_image(network: SegmentationModel, image: Array, *, num_classes: int, tile_px: int) -> NDArray[np.uint8]:
    """Return the labels of a normalized image, tile by tile.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on any device.
    image : (channels, rows, columns) float32 array
    num_classes : int
        Of the network.
    tile_px : int
        Largest side of a tile.

    Returns
    -------
    (rows, columns) uint8 array
    """
    shape = (image.shape[1], image.shape[2])
    grid = Grid.plan(shape, geometry=network.geometry, tile_px=tile_px)
    weight = next(network.parameters())
    blend = Blend(grid, num_classes) if grid.overlap_px else None
    labels = np.empty(shape, dtype=np.uint8)
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], shape, tile.read)
        logits = logits_of(network, to_device(window[None], weight), grid.cut_px)
        if blend is None:
            labels[tile.write.slices] = crop_to(labels_of(logits), tile)[0].cpu().numpy()
            continue
        for region, probabilities in blend.add(tile, probabilities_of(logits)[0]):
            labels[region.slices] = probabilities.argmax(axis=0)
    return labels


def to_device(windows: NDArray[np.float32], weight: Tensor) -> Tensor:
    """Copy windows to the device and precision of the weights, in the memory order that is fastest."""
    pixels = torch.from_numpy(windows)
    if weight.device.type == "cuda":
        pixels = pixels.pin_memory()
    pixels = pixels.to(weight.device, non_blocking=True)
    return pixels.to(weight.dtype, memory_format=torch.channels_last)


def labels_of(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, as uint8 (N, rows, columns); the first one if several are equal."""
    return logits.max(dim=1).indices.to(torch.uint8)  # argmax is 25 times slower in one of the memory orders


def probabilities_of(logits: Tensor) -> NDArray[np.float32]:
    """Return class probabilities, (N, classes, rows, columns), in the memory of the CPU."""
    return logits.float().softmax(dim=1).cpu().numpy()


def uncertain_of(logits: Tensor) -> Tensor:
    """Return where the best class is less than three times as probable as the second, as bool (N, rows, columns)."""
    near = logits > logits.amax(dim=1, keepdim=True) - _UNCERTAIN  # true for the best itself
    return near.sum(dim=1, dtype=torch.uint8) > 1


def crop_to(values: Tensor, tile: Tile) -> Tensor:
    """Return the part of a tile that is on the slide."""
    return values[..., *crop_slices(tile)]


def crop_slices(tile: Tile) -> tuple[slice, slice]:
    """Return the rows and columns of a tile that are on the slide."""
    rows, columns = tile.write.shape
    return slice(rows), slice(columns)
