"""Tiled inference: windows go in, logits of their write regions come out, equal to those of one pass over the slide.

They are equal because windows start on multiples of the stride, extend at least the context beyond what they write, and
are normalized with the statistics of the whole slide (tested in ``tests/pipeline/prediction/test_forward.py``).
Windows of networks with global context cannot be equal: they are blended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.base.geometry import Geometry
from models.base.interface import SegmentationModel
from pipeline.base.arrays import Array, bands, outside_the_heap
from pipeline.base.errors import SlidemillError
from pipeline.prediction.blending import Blend
from pipeline.runtime.device import free_cached_memory, is_out_of_memory
from pipeline.settings.schema import MIRROR_PX
from pipeline.tiling.grid import Cut, Grid, Region, Tile
from pipeline.tiling.mirror_padding import read_mirrored

log = logging.getLogger(__name__)

Part = tuple[slice, slice]  # rows and columns of a window

_BAND_VALUES = 2**17  # logits of the rows that are labelled at a time
_SUMMED_VALUES = 2**15 - 1  # if there are more, other threads help with a sum: to wake them takes longer
_UNCERTAIN = math.log(3)  # difference of logits: of two classes, the better one has a probability below 0.75


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of one shape: pixels as they are read, and what to normalize them with.

    Attributes
    ----------
    pixels : (N, rows, columns, channels) tensor
        On the processor or the device: uint8, uint16 or another type of small integers; else normalized floats.
    low, scale : (N, channels) float32 tensor or None
        Normalized pixels are (pixels - low) / scale, in float32; None: they are normalized already.
    """

    pixels: Tensor
    low: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def normalized(cls, windows: NDArray[Any]) -> Self:
        """Return (N, channels, rows, columns) normalized pixels as windows."""
        return cls(pixels=torch.from_numpy(windows).permute(0, 2, 3, 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of windows, rows and columns."""
        count, rows, columns, _ = self.pixels.shape
        return count, rows, columns

    def some(self, part: slice) -> Self:
        """Return some of the windows."""
        if self.low is None or self.scale is None:
            return replace(self, pixels=self.pixels[part])
        return replace(self, pixels=self.pixels[part], low=self.low[part], scale=self.scale[part])

    def within(self, axis: int, part: slice) -> Self:
        """Return a part of the rows (``axis`` 1) or columns (2) of each window."""
        return replace(self, pixels=self.pixels.narrow(axis, part.start, part.stop - part.start))

    def on(self, device: torch.device) -> Self:
        """Return the windows on a device; a copy to a GPU may still be under way on the current stream."""
        pixels = self.pixels
        if device.type == "cuda" and not pixels.is_cuda:
            pixels = pixels.pin_memory()  # torch keeps this memory, and reuses it when the copy is done
        return replace(self, pixels=pixels.to(device, non_blocking=True))


@torch.inference_mode()
def logits_of(network: SegmentationModel, windows: Tensor, cut: Cut) -> Tensor:
    """Run windows of one shape through the network and cut off their context.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode.
    windows : (N, channels, rows, columns) float tensor
        Normalized pixels; rows and columns are multiples of the stride.
    cut : Cut
        Pixels to cut off on each side: the halo or the surround, less what is kept for blending.

    Returns
    -------
    (N, classes + heads, rows - cut.top - cut.bottom, columns - cut.left - cut.right) float tensor
    """
    geometry = network.geometry
    rows, columns = windows.shape[-2:]
    logits: Tensor = network(windows[..., : geometry.input_px(rows), : geometry.input_px(columns)])
    top, left = cut.top - geometry.margin_px, cut.left - geometry.margin_px
    bottom, right = top + rows - cut.top - cut.bottom, left + columns - cut.left - cut.right
    return logits[..., top:bottom, left:right]


class Forward:
    """A network that takes windows of any size: in smaller pieces if the memory of its device is too small.

    Batches are halved, then single windows: into two that overlap by the halo of both, which is exact. Windows of
    networks with global context are not divided. A size that did not fit is not tried again.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on its device.

    Attributes
    ----------
    num_classes
        Channels of the output that are logits of classes; the others are heads.
    """

    def __init__(self, network: SegmentationModel) -> None:
        self.num_classes = network.num_classes
        self._network = network
        self._weight = next(network.parameters())
        self._too_large_px = math.inf

    def __call__(self, windows: Windows, cut: Cut) -> Tensor:
        """Normalize windows on the device and return their logits there, as :func:`logits_of` does.

        Raises
        ------
        SlidemillError
            If the smallest piece does not fit.
        """
        pieces = _halves(windows, self._network.geometry, cut)
        pixels = math.prod(windows.shape)
        if pieces is None or pixels < self._too_large_px:
            try:
                return logits_of(self._network, to_device(windows, self._weight), cut)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            free_cached_memory(self._weight.device)
            if pieces is None:
                _, rows, columns = windows.shape
                raise SlidemillError(
                    f"a window of {rows} x {columns} px does not fit into the memory of {self._weight.device}; "
                    "lower tiling.memory_mb or tiling.tile_px"
                )
            self._too_large_px = pixels
            log.warning("%s: not enough memory for windows %s; they are halved", self._weight.device, windows.shape)
        halves, axis = pieces
        return torch.cat([self(half, its_cut) for half, its_cut in halves], dim=axis)


def _halves(windows: Windows, geometry: Geometry, cut: Cut) -> tuple[list[tuple[Windows, Cut]], int] | None:
    """Return two halves of a batch, or of its only window, with their cuts, and the axis that joins their logits.

    None if they cannot be divided.
    """
    count, rows, columns = windows.shape
    if count > 1:
        return [(windows.some(half), cut) for half in bands(count, -(-count // 2))], 0
    axis, length = (1, rows) if rows >= columns else (2, columns)
    before, after = (cut.top, cut.bottom) if axis == 1 else (cut.left, cut.right)
    written = length - before - after
    middle = before + written // 2 // geometry.stride_px * geometry.stride_px
    if middle == before or geometry.context_px is None:
        return None
    stop, start = min(middle + geometry.halo_px, length), max(middle - geometry.halo_px, 0)
    first, last = windows.within(axis, slice(0, stop)), windows.within(axis, slice(start, length))
    if axis == 1:
        return [(first, cut._replace(bottom=stop - middle)), (last, cut._replace(top=middle - start))], 2
    return [(first, cut._replace(right=stop - middle)), (last, cut._replace(left=middle - start))], 3


def predict_image(
    network: SegmentationModel, image: Array, *, num_classes: int, tile_px: int, mirror_px: int = MIRROR_PX
) -> NDArray[np.uint8]:
    """Return the labels of a whole image, (rows, columns) uint8: those of :func:`predict_regions`."""
    labels = np.empty(image.shape[1:], dtype=np.uint8)
    for region, part in predict_regions(network, image, num_classes=num_classes, tile_px=tile_px, mirror_px=mirror_px):
        labels[region.slices] = part
    return labels


def predict_regions(
    network: SegmentationModel, image: Array, *, num_classes: int, tile_px: int, mirror_px: int = MIRROR_PX
) -> Iterator[tuple[Region, NDArray[np.uint8]]]:
    """Yield the labels of a normalized image tile by tile; the image may be larger than memory.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on any device.
    image : (channels, rows, columns) float32 array
    num_classes : int
        Of the network; its heads are left out.
    tile_px : int
        Largest side of a tile.
    mirror_px : int
        The surround that is asked for.

    Yields
    ------
    region : Region
        Together they cover the image, each pixel once.
    labels : (rows, columns) uint8 array
    """
    shape = (image.shape[1], image.shape[2])
    grid = Grid.plan(shape, geometry=network.geometry, tile_px=tile_px, mirror_px=mirror_px)
    blend = Blend(grid, num_classes) if grid.overlap_px else None
    forward = Forward(network)
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], shape, tile.read)
        logits = forward(Windows.normalized(window[None]), tile.cut)[:, :num_classes]
        if blend is None:
            yield tile.write, crop_to(labels_of(logits), tile)[0].cpu().numpy()
            continue
        for region, probabilities in blend.add(tile, probabilities_of(logits)[0]):
            yield region, probabilities.argmax(axis=0).astype(np.uint8)


def to_device(windows: Windows, weight: Tensor) -> Tensor:
    """Return normalized windows, (N, channels, rows, columns), on the device and in the precision of the weights.

    Their memory order is the one that is fastest, and the numbers are those of
    :func:`pipeline.slides.intensity.normalize` bit for bit.
    """
    windows = windows.on(weight.device)
    pixels = windows.pixels
    if windows.low is not None and windows.scale is not None:
        # By rows of all channels, and a tensor of divisors: a GPU would multiply by the inverse of a single number.
        rows = pixels.to(torch.float32).flatten(2)
        low, scale = (_per_row(one, windows, weight.device) for one in (windows.low, windows.scale))
        pixels = rows.sub_(low).div_(scale).view(pixels.shape)
    return pixels.permute(0, 3, 1, 2).to(weight.dtype, memory_format=torch.channels_last)


def _per_row(values: Tensor, windows: Windows, device: torch.device) -> Tensor:
    """Return values of channels, (N, channels), repeated for each pixel of a row: (N, 1, columns x channels)."""
    return values.to(device, non_blocking=True)[:, None].tile(windows.shape[2])


def labels_of(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, as uint8 (N, rows, columns); the first one if several are equal.

    These logits, and those below, are of the classes only.
    """
    return label(logits)[0]


def label(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the labels of :func:`labels_of`, and where they are uncertain, as bool (N, rows, columns).

    A pixel is uncertain if its best class is less than three times as probable as the second.
    """
    if not _is_for_numpy(logits):
        return _compared(logits.unbind(1), torch)
    shape = len(logits), *logits.shape[2:]
    labels, uncertain = np.empty(shape, np.uint8), np.empty(shape, np.bool_)
    for number, rows, planes, _ in _by_rows(logits):
        labels[number, rows], uncertain[number, rows] = _compared(planes, np)
    return torch.from_numpy(labels), torch.from_numpy(uncertain)


class Labelled(NamedTuple):
    """Labels of N windows: (N, rows, columns) as of :func:`labels_of`, and of each window two facts, (N,).

    ``uncertain`` is how many pixels of its part are uncertain, ``finite`` whether all its logits are finite. All are in
    the memory of the processor, labels in memory of their own: they are written while the network runs on.
    """

    labels: NDArray[np.uint8]
    uncertain: NDArray[np.int64]
    finite: NDArray[np.bool_]


def label_windows(logits: Tensor, parts: Sequence[Part]) -> Labelled:
    """Label windows; ``parts`` are those in which uncertain pixels are counted."""
    labels = outside_the_heap((len(logits), *logits.shape[2:]), np.uint8)
    if not _is_for_numpy(logits):
        on_device, uncertain = label(logits)
        counts = torch.stack([one[part].count_nonzero() for one, part in zip(uncertain, parts, strict=True)])
        finite = are_finite(logits)
        torch.from_numpy(labels).copy_(on_device)
        return Labelled(labels, counts.cpu().numpy(), finite)
    counted, finite = np.zeros(len(logits), np.int64), np.ones(len(logits), np.bool_)
    for number, rows, planes, are_all_finite in _by_rows(logits):
        labels[number, rows], doubt = _compared(planes, np)
        height, width = parts[number]
        counted[number] += np.count_nonzero(doubt[: max(0, height.stop - rows.start), width])
        finite[number] &= are_all_finite
    return Labelled(labels, counted, finite)


def are_finite(output: Tensor) -> NDArray[np.bool_]:
    """Return of which windows all values are finite: those whose sum is, and of the others those of which each is."""
    finite: NDArray[np.bool_] = output.sum(dim=(1, 2, 3), dtype=torch.float32).isfinite().cpu().numpy()
    return finite if finite.all() else output.isfinite().flatten(1).all(1).cpu().numpy()


def _is_for_numpy(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.dtype != torch.bfloat16  # which NumPy does not have


def _by_rows(logits: Tensor) -> Iterator[tuple[int, slice, list[NDArray[Any]], bool]]:
    """Yield a few rows at a time, for the cache of a processor: window, rows, classes, whether all are finite.

    Their sums come first. They read memory in its order, and so bring the rows into the cache in half of the time that
    separating the classes, which may be interleaved, would take.
    """
    summed = _BAND_VALUES if torch.get_num_threads() == 1 else _SUMMED_VALUES
    for number, window in enumerate(logits):
        classes, height, width = window.shape
        for rows in bands(height, max(1, _BAND_VALUES // (classes * width))):
            some = window[:, rows]
            few = some.split(max(1, summed // (classes * width)), dim=1)
            sums = [math.isfinite(part.sum(dtype=torch.float32)) for part in few]
            is_finite = all(sums) or bool(some.isfinite().all())
            yield number, rows, list(np.ascontiguousarray(some.numpy())), is_finite


def _compared(scores: Sequence[Any], library: Any) -> tuple[Any, Any]:
    """Compare classes one by one, by NumPy or PyTorch: faster than argmax and sorting. See :func:`label`."""
    best, *others = scores
    if not others:
        return library.zeros_like(best, dtype=library.uint8), library.zeros_like(best, dtype=library.bool)
    labels, second = (others[0] > best).view(library.uint8), library.minimum(best, others[0])
    best = library.maximum(best, others[0])
    for number, score in enumerate(others[1:], 2):
        labels = library.maximum(labels, (score > best).view(library.uint8) * number)
        second = library.maximum(second, library.minimum(best, score))
        best = library.maximum(best, score)
    return labels, second > best - _UNCERTAIN


def probabilities_of(logits: Tensor) -> NDArray[np.float32]:
    """Return class probabilities, (N, classes, rows, columns), in the memory of the CPU."""
    return logits.float().softmax(dim=1).cpu().numpy()


def crop_to(values: Tensor, tile: Tile) -> Tensor:
    """Return the part of a tile that is computed and on the slide."""
    return values[..., *crop_slices(tile)]


def crop_slices(tile: Tile) -> Part:
    """Return the rows and columns of the output of a window that are its part, and on the slide."""
    rows, columns = tile.part.shape
    return slice(rows), slice(columns)
