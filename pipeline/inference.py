"""Tiled inference: windows in, class probabilities of their write regions out, exactly as in one pass over the slide.

This holds because windows start on multiples of the stride, reach at least the context beyond what they write, and
are normalized with the statistics of the whole slide; ``tests/pipeline/test_inference.py`` proves it. It cannot hold
for networks with global context: their windows are blended.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.interface import SegmentationModel
from pipeline.blending import Blend
from pipeline.tiling import Grid, Tile, read_mirrored

_UNCERTAIN = math.log(3)  # between logits: with two classes, the better one has a probability below 0.75


@torch.inference_mode()
def logits_of(network: SegmentationModel, windows: Tensor, cut_px: int) -> Tensor:
    """Run windows of one shape through the network and cut off what only was context.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode.
    windows : (N, channels, rows, columns) float tensor
        Normalized pixels; rows and columns are multiples of the stride.
    cut_px : int
        What to cut off: the halo, less what is kept for blending.

    Returns
    -------
    (N, classes, rows - 2 cut_px, columns - 2 cut_px) float tensor
    """
    geometry = network.geometry
    rows, columns = windows.shape[-2:]
    logits: Tensor = network(windows[..., : geometry.input_px(rows), : geometry.input_px(columns)])
    first = cut_px - geometry.margin_px
    return logits[..., first : first + rows - 2 * cut_px, first : first + columns - 2 * cut_px]


def predict_image(
    network: SegmentationModel, image: NDArray[np.float32], *, num_classes: int, tile_px: int
) -> NDArray[np.uint8]:
    """Return the labels of a normalized image in memory, tile by tile.

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
    device = next(network.parameters()).device
    blend = Blend(grid, num_classes) if grid.overlap_px else None
    labels = np.empty(shape, dtype=np.uint8)
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], shape, tile.read)
        logits = logits_of(network, to_device(window[None], device), grid.cut_px)
        if blend is None:
            labels[tile.write.slices] = crop_to(labels_of(logits), tile)[0].cpu().numpy()
            continue
        for region, probabilities in blend.add(tile, probabilities_of(logits)[0]):
            labels[region.slices] = probabilities.argmax(axis=0)
    return labels


def to_device(windows: NDArray[np.float32], device: torch.device) -> Tensor:
    """Copy windows to the device in the memory order that convolutions like best."""
    return torch.from_numpy(windows).to(device).contiguous(memory_format=torch.channels_last)


def labels_of(logits: Tensor) -> Tensor:
    """Return the class of largest logit, as uint8 (N, rows, columns); the first of equals."""
    return logits.argmax(dim=1).to(torch.uint8)


def probabilities_of(logits: Tensor) -> NDArray[np.float32]:
    """Return class probabilities, (N, classes, rows, columns) on the host."""
    probabilities: NDArray[np.float32] = logits.float().softmax(dim=1).cpu().numpy()
    return probabilities


def uncertain_of(logits: Tensor) -> Tensor:
    """Say where the best class is less than three times as probable as the second, as bool (N, rows, columns)."""
    best = logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1] < _UNCERTAIN


def crop_to(values: Tensor, tile: Tile) -> Tensor:
    """Cut what lies beyond the slide off the last rows and columns of a border tile."""
    return values[..., *crop_slices(tile)]


def crop_slices(tile: Tile) -> tuple[slice, slice]:
    """Return the rows and columns of a tile that are on the slide."""
    rows, columns = tile.write.shape
    return slice(rows), slice(columns)
