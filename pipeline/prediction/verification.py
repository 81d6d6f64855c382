"""Check that tiles equal one pass over the whole, on a piece of a real slide: prediction, and the random field.

The piece, an array, is treated as a slide of its own, mirrored at its borders. The difference comes out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.base.folding import fold_batch_norm
from models.base.geometry import round_up
from models.base.interface import SegmentationModel
from models.layers.upsampling import has_max_unpooling
from pipeline.base.errors import ConfigError
from pipeline.masks.random_field import beliefs_in, mean_field
from pipeline.prediction.forward import Windows, crop_to, labels_of, logits_of, predict_image, to_device
from pipeline.settings.crf import CrfConfig
from pipeline.tiling.grid import Cut, Grid, Region
from pipeline.tiling.mirror_padding import read_mirrored

Precision = Literal["float64", "float32"]

TOLERANCES: dict[Precision, float] = {"float64": 1e-10, "float32": 1e-4}  # largest difference of logits by rounding
_FIELD_TOLERANCES: dict[Precision, float] = {"float64": 1e-10, "float32": 1e-5}  # of probabilities
_DTYPES = {"float64": torch.float64, "float32": torch.float32}
_TILE_PX = 128
_CANDIDATES = 8  # per side: places where the piece could be cut


@dataclass(frozen=True, kw_only=True)
class Check:
    """The difference between tiles and the whole, in one precision: of logits, or of probabilities of a random field.

    ``flips`` are pixels whose label differs. Those outside ties cannot be explained by rounding: the two largest values
    of the whole differ by more than twice the tolerance. ``jumps`` says that the network has max unpooling: rounding
    decides which of two nearly equal values of a pooling window is the largest, and the unpooled value moves by a
    pixel. Then float32 is measured, and float64 decides.
    """

    precision: Precision
    tolerance: float
    max_difference: float
    flips: int
    flips_outside_ties: int
    jumps: bool = False

    @property
    def holds(self) -> bool:
        """Whether tiled prediction equals that of the whole, as far as this precision can tell."""
        if self.jumps and self.precision == "float32":
            return True
        flips = self.flips if self.precision == "float64" else self.flips_outside_ties
        return self.max_difference <= self.tolerance and flips == 0


def small_grid(planned: Grid, *, largest_px: int) -> Grid:
    """Return a grid of 3 x 3 tiles, with the stride, halo and surround of a plan, for a piece of its slide.

    Parameters
    ----------
    planned : Grid
        Of the slide. If that is too small, there are fewer tiles.
    largest_px : int
        Most pixels of one pass over the piece and its surround.

    Raises
    ------
    ConfigError
        If even the smallest tiles exceed that.
    """
    stride, halo = planned.stride_px, planned.halo_px - planned.overlap_px
    surround = planned.surround_px - planned.overlap_px
    side = (round_up(_TILE_PX, stride) // stride | 1) * stride  # odd, to detect a stride that is half of the true one
    while (3 * side + 2 * surround) ** 2 > largest_px and side > stride:
        side -= 2 * stride
    if (3 * side + 2 * surround) ** 2 > largest_px:
        raise ConfigError(
            f"one pass over 3 x 3 tiles of {side} px with {surround} mirrored px around them has "
            f"{(3 * side + 2 * surround) ** 2} px, tiling.memory_mb allows {largest_px}; raise it"
        )
    shape = tuple(min(length, 3 * side - stride // 2) for length in planned.shape)  # the last tiles are cut off
    tile = tuple(side if length > 2 * side else max(length // 3 // stride, 1) * stride for length in shape)
    return Grid(
        shape=(shape[0], shape[1]), tile=(tile[0], tile[1]), halo_px=halo, surround_px=surround, stride_px=stride
    )


def richest_piece(
    read: Callable[[slice, slice], NDArray[Any]], shape: tuple[int, int], piece: tuple[int, int]
) -> Region:
    """Return the place of the piece with the largest variance, out of 8 x 8 places spread evenly over the slide."""
    ends = zip(shape, piece, strict=True)
    starts = [np.unique(np.linspace(0, length - side, _CANDIDATES).astype(int)).tolist() for length, side in ends]
    corners = product(*starts)
    places = [Region(top=top, left=left, bottom=top + piece[0], right=left + piece[1]) for top, left in corners]
    return max(places, key=lambda place: float(read(*place.slices).astype(np.float64).var(axis=(1, 2)).sum()))


def check_exactness(network: SegmentationModel, image: NDArray[np.float32], grid: Grid, precision: Precision) -> Check:
    """Compare tiles with one pass over the whole.

    The network is prepared as for prediction for the tiles, and used as trained for the whole.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on the CPU; it is not changed.
    image : (channels, rows, columns) float32 array
        Normalized, of the shape of ``grid``.
    grid : Grid
        Of exact tiles.
    """
    trained = copy.deepcopy(network).to(_DTYPES[precision])
    whole = one_pass(trained, image, grid)
    fold_batch_norm(trained)
    tiled = _tile_by_tile(trained.to(memory_format=torch.channels_last), image, grid)
    found = _compare(tiled, whole, network.num_classes, precision, TOLERANCES[precision])
    return replace(found, jumps=has_max_unpooling(network))


def check_field(
    network: SegmentationModel, image: NDArray[np.float32], grid: Grid, config: CrfConfig, precision: Precision
) -> Check:
    """Compare the random field in blocks, the tiles of a grid, with that of the whole.

    Its probabilities are those of one pass of the network; other parameters are those of :func:`check_exactness`.
    """
    logits = one_pass(network, image, grid)[0, : network.num_classes]
    probabilities = logits.softmax(dim=0).to(_DTYPES[precision]).numpy()
    whole = mean_field(probabilities, image, config)
    blocks = np.empty_like(whole)
    for tile in grid.tiles():
        blocks[:, *tile.write.slices] = beliefs_in(tile.write.slices, probabilities, image, config)
    tiled, untiled = torch.from_numpy(blocks)[None], torch.from_numpy(whole)[None]
    return _compare(tiled, untiled, network.num_classes, precision, _FIELD_TOLERANCES[precision])


def _compare(
    tiled: torch.Tensor, whole: torch.Tensor, num_classes: int, precision: Precision, tolerance: float
) -> Check:
    """Compare (1, classes and perhaps more, rows, columns) scores."""
    best, second = whole[:, :num_classes].topk(2, dim=1).values.unbind(dim=1)
    flipped = labels_of(tiled[:, :num_classes]) != labels_of(whole[:, :num_classes])
    return Check(
        precision=precision,
        tolerance=tolerance,
        max_difference=float((tiled - whole).abs().max()),
        flips=int(flipped.sum()),
        flips_outside_ties=int((flipped & (best - second > 2 * tolerance)).sum()),
    )


def mismatch_of(network: SegmentationModel, image: NDArray[np.float32], grid: Grid, *, num_classes: int) -> float:
    """Return the share of pixels whose label differs between blended tiles and one pass over the image."""
    whole = labels_of(one_pass(network, image, grid)[:, :num_classes])
    tiled = predict_image(network, image, num_classes=num_classes, tile_px=max(grid.tile), mirror_px=grid.surround_px)
    return float((whole[0].numpy() != tiled).mean())


@torch.inference_mode()
def one_pass(network: SegmentationModel, image: NDArray[np.float32], grid: Grid) -> torch.Tensor:
    """Return the (1, classes + heads, rows, columns) logits of one pass over an image, padded by numpy."""
    after = [round_up(length, grid.stride_px) - length for length in grid.shape]
    padding = [(0, 0), *((grid.surround_px, grid.surround_px + more) for more in after)]
    window = torch.from_numpy(np.pad(image, padding, mode="reflect")[None])
    logits = logits_of(network, window.to(next(network.parameters()).dtype), Cut.all_sides(grid.surround_px))
    return logits[..., : grid.shape[0], : grid.shape[1]]


def _tile_by_tile(network: SegmentationModel, image: NDArray[np.float32], grid: Grid) -> torch.Tensor:
    weight, logits = next(network.parameters()), torch.empty(0)
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], grid.shape, tile.read)
        part = crop_to(logits_of(network, to_device(Windows.normalized(window[None]), weight), tile.cut), tile)
        if not len(logits):
            logits = torch.empty(1, part.shape[1], *grid.shape, dtype=part.dtype)
        logits[..., *tile.write.slices] = part
    return logits
