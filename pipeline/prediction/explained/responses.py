"""What a network looks at: occlusion maps, filters of the first layer, and the strongest responses of layers.

A network and normalized windows go in, arrays come out. Occlusion and strongest responses are those of Zeiler and
Fergus (2014), "Visualizing and Understanding Convolutional Networks", ECCV, arXiv:1311.2901.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.feature import peak_local_max
from torch import nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from models.base.geometry import round_up
from models.base.interface import SegmentationModel
from pipeline.base.arrays import bands
from pipeline.prediction.forward import Windows, logits_of, probabilities_of, to_device
from pipeline.settings.schema import MIRROR_PX
from pipeline.tiling.grid import Cut, Region, surround_of

_NOISE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Response:
    """A strong response of a channel of a layer: its pixel of the window (row, column) and its value."""

    layer: str
    channel: int
    row: int
    column: int
    value: float

    def shifted(self, top: int, left: int) -> Self:
        """Return the response in pixels of the image that the window was cut from, at ``top`` and ``left``."""
        return replace(self, row=self.row + top, column=self.column + left)


def receptive_window(
    network: SegmentationModel, place: Region, region: Region, *, shape: tuple[int, int], mirror_px: int = MIRROR_PX
) -> tuple[Region, Cut]:
    """Return the window that the logits of ``place`` depend on, and what is cut off them.

    These are whole stride cells and the halo around them, as far as it reaches into the surround of a slide of
    ``shape``: so the network sees what it sees in prediction. A network with global context gets ``region`` instead, in
    whole cells.
    """
    geometry = network.geometry
    stride, halo, surround = geometry.stride_px, geometry.halo_px, surround_of(geometry, mirror_px)
    inner = region if geometry.context_px is None else place
    top, left = inner.top // stride * stride, inner.left // stride * stride
    bottom, right = top + round_up(inner.bottom - top, stride), left + round_up(inner.right - left, stride)
    ends = [round_up(length, stride) + surround for length in shape]
    window = Region(
        top=max(top - halo, -surround),
        left=max(left - halo, -surround),
        bottom=min(bottom + halo, ends[0]),
        right=min(right + halo, ends[1]),
    )
    return window, Cut(top - window.top, left - window.left, window.bottom - bottom, window.right - right)


def probabilities_of_window(network: SegmentationModel, windows: NDArray[np.float32], cut: Cut) -> NDArray[np.float32]:
    """Return the class probabilities of windows without what is cut off.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode.
    windows : (N, channels, rows, columns) float32 array
        Normalized; whole stride cells and what is around them.
    cut : Cut
        That of :func:`receptive_window`.

    Returns
    -------
    (N, classes, rows, columns) float32 array
        Rows and columns less the cut.
    """
    weight = next(network.parameters())
    logits = logits_of(network, to_device(Windows.normalized(windows), weight), cut)
    return probabilities_of(logits[:, : network.num_classes])


def occlusion_map(
    network: SegmentationModel,
    window: NDArray[np.float32],
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    *,
    cut: Cut,
    fill: Sequence[float],
    occluder_px: int,
    step_px: int,
    batch: int,
) -> NDArray[np.float32]:
    """Return by how much a score falls if a square of the window is hidden.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode.
    window : (channels, rows, columns) float32 array
        Normalized; whole stride cells and what is around them.
    score : callable
        Takes the result of :func:`probabilities_of_window` for N windows and returns their (N,) scores, such as the
        probability of one class at one pixel.
    cut : Cut
        That of :func:`receptive_window`.
    fill : sequence of float
        Value of the square per channel: the normalized mean of the slide.
    occluder_px, step_px : int
        Side of the square, and its step. Squares at the border are cut off.
    batch : int
        Windows per forward pass.

    Returns
    -------
    (rows, columns) float32 array
        At each pixel, the mean over the squares that hid it; negative if hiding raises the score.
    """
    before = score(probabilities_of_window(network, window[None], cut))[0]
    falls, covers = np.zeros((2, *window.shape[1:]), dtype=np.float64)
    squares = list(_squares((window.shape[1], window.shape[2]), occluder_px, step_px))
    grey = np.asarray(fill, dtype=np.float32)[:, None, None]
    with tqdm(total=len(squares), unit="squares", disable=None, desc="occlusion") as bar:
        for some in (squares[part] for part in bands(len(squares), batch)):
            hidden = np.repeat(window[None], len(some), axis=0)
            for image, square in zip(hidden, some, strict=True):
                image[:, *square.slices] = grey
            scores = score(probabilities_of_window(network, hidden, cut))
            for square, after in zip(some, scores, strict=True):
                falls[square.slices] += float(before) - float(after)
                covers[square.slices] += 1
            bar.update(len(some))
    fall: NDArray[np.float32] = (falls / covers).astype(np.float32)
    return fall


def first_layer_filters(network: nn.Module) -> NDArray[np.float32]:
    """Return the kernels of the first convolution, (filters, channels, rows, columns) float32."""
    _, layer = next(_convolutions(network))
    kernels: NDArray[np.float32] = layer.weight.detach().float().cpu().numpy()
    return kernels


def layers_to_show(network: nn.Module) -> list[str]:
    """Return the names of the first convolution and of the one in the middle, in the order of modules."""
    names = [name for name, _ in _convolutions(network)]
    return list(dict.fromkeys([names[0], names[len(names) // 2]]))


def responses(
    network: SegmentationModel, window: NDArray[np.float32], layers: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of convolutions for a window, before normalization: (channels, rows, columns) float32 by name.

    If a layer runs several times (an ensemble under flips), the first output is returned, that of the upright window.
    """
    modules = dict(_convolutions(network))
    recorded = _RecordConvolutions({id(modules[name].weight): name for name in layers})
    rows, columns = (network.geometry.input_px(length) for length in window.shape[1:])
    with torch.inference_mode(), recorded:
        network(to_device(Windows.normalized(window[None, :, :rows, :columns]), next(network.parameters())))
    return {name: recorded.maps[name] for name in layers if name in recorded.maps}


def strongest_responses(
    maps: Mapping[str, NDArray[np.float32]],
    shape: tuple[int, int],
    *,
    channels: int,
    count: int,
    apart_px: int,
    border: Cut,
) -> list[Response]:
    """Return the strongest responses of the channels with the most outstanding maxima, strongest of a channel first.

    Parameters
    ----------
    maps : mapping
        Result of :func:`responses` for a window.
    shape : (rows, columns)
        Of that window.
    channels : int
        Most channels per layer: those with the largest (maximum - mean) / standard deviation.
    count : int
        Most responses per channel.
    apart_px : int
        Least distance (in both directions) between two of them, px of the window.
    border : Cut
        Pixels of the window that are left out on each side: what is cut off its logits.
    """
    found = list[Response]()
    for layer, values in maps.items():
        ratio = 2.0 ** round(math.log2(shape[0] / values.shape[1]))  # px of the window per px of the map
        spread = values.std(axis=(1, 2))
        outstanding = (values.max(axis=(1, 2)) - values.mean(axis=(1, 2))) / (spread + _NOISE)
        for channel in np.argsort(-outstanding, kind="stable")[:channels]:
            if spread[channel] > _NOISE:  # else it is constant
                inside = _inside(values[channel], ratio, shape, border)
                apart = max(1, round(apart_px / ratio))
                some = peak_local_max(inside, min_distance=apart, num_peaks=count, exclude_border=False)
                found += [_response(layer, int(channel), values[channel], peak, ratio, shape) for peak in some]
    return found


def _squares(shape: tuple[int, int], side: int, step: int) -> Iterator[Region]:
    """Yield squares that together hide every pixel."""
    starts = [range(0, max(length - side, 0) + step, step) for length in shape]
    for top, left in product(*starts):
        if top < shape[0] and left < shape[1]:
            yield Region(top=top, left=left, bottom=min(top + side, shape[0]), right=min(left + side, shape[1]))


def _convolutions(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


class _RecordConvolutions(TorchFunctionMode):
    """Records the outputs of convolutions by their weights; hooks would miss direct calls of the function."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names
        self.maps: dict[str, NDArray[np.float32]] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call a function of torch; record its result if it is one of the convolutions."""
        made = func(*args, **dict(kwargs or {}))
        if func is F.conv2d:
            name = self._names.get(id(args[1]))
            if name is not None and name not in self.maps:
                self.maps[name] = made[0].detach().float().cpu().numpy().copy()
        return made


def _pixels(length: int, ratio: float, whole: int) -> NDArray[np.float64]:
    """Return the positions of the pixels of a map in the window; both have the same centre."""
    return whole / 2 - 0.5 + (np.arange(length, dtype=np.float64) + 0.5 - length / 2) * ratio


def _inside(values: NDArray[np.float32], ratio: float, shape: tuple[int, int], border: Cut) -> NDArray[np.float32]:
    """Return a map with its border set to the minimum."""
    rows, columns = (_pixels(n, ratio, whole) for n, whole in zip(values.shape, shape, strict=True))
    high = (rows >= border.top) & (rows <= shape[0] - 1 - border.bottom)
    wide = (columns >= border.left) & (columns <= shape[1] - 1 - border.right)
    return np.where(high[:, None] & wide[None, :], values, values.min())


def _response(
    layer: str, channel: int, values: NDArray[np.float32], peak: NDArray[np.intp], ratio: float, shape: tuple[int, int]
) -> Response:
    """Return the response at a peak of a map, in pixels of the window."""
    row, column = (
        int(_pixels(length, ratio, whole)[index].round())
        for length, whole, index in zip(values.shape, shape, peak, strict=True)
    )
    return Response(layer=layer, channel=channel, row=row, column=column, value=float(values[tuple(peak)]))
