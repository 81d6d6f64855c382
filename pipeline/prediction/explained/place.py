"""What a network looks at on one slide: figures and numbers for a place and the region around it.

A network and an open slide go in; PNG files as bytes, and numbers in pixels of the slide, come out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.prediction.explained.figures import Row, occlusion_figure, response_figure
from pipeline.prediction.explained.responses import (
    Response,
    layers_to_show,
    occlusion_map,
    probabilities_of_window,
    receptive_window,
    responses,
    strongest_responses,
)
from pipeline.slides.intensity import Statistics, normalize
from pipeline.slides.slide import Slide
from pipeline.tiling.grid import Cut, Region
from pipeline.tiling.mirror_padding import read_mirrored

_SQUARES = 24  # along the side of the window; each hides one part of it
_LARGEST_BATCH = 16
_WHOLE = Cut.all_sides(0)
_CHANNELS, _PATCHES, _PATCH_PX = 6, 6, 48  # channels per layer, patches per channel, side of a patch


@dataclass(frozen=True, kw_only=True)
class ExplainedSlide:
    """A slide and the network to explain on it.

    Attributes
    ----------
    network : SegmentationModel
        In evaluation mode.
    statistics : list of Statistics
        Of the whole slide, for normalization.
    largest_px : int
        Most pixels that a window may have.
    mirror_px : int
        The surround that prediction has.
    """

    network: SegmentationModel
    slide: Slide
    statistics: list[Statistics]
    largest_px: int
    mirror_px: int

    def seen(self, place: Region, region: Region) -> tuple[Region, Cut]:
        """Return the window that the network sees of a place, and what is cut off its logits."""
        return receptive_window(self.network, place, region, shape=self.slide.shape, mirror_px=self.mirror_px)

    def read(self, window: Region) -> NDArray[np.float32]:
        """Return the normalized pixels of a window, mirrored beyond the slide."""
        if math.prod(window.shape) > self.largest_px:
            rows, columns = window.shape
            raise SlidemillError(
                f"a window of {rows} x {columns} px (halo included) is more than --memory-mb allows "
                f"({self.largest_px} px); choose a smaller --region or --place, or raise it"
            )
        return normalize(read_mirrored(self.slide.read, self.slide.shape, window), self.statistics)


def surest_place(explained: ExplainedSlide, region: Region) -> Region:
    """Return the pixel of the region with the highest probability of a class other than the first."""
    network = explained.network
    window, cut = explained.seen(region, region)
    probabilities = probabilities_of_window(network, explained.read(window)[None], cut)[0]
    inside = _relative_to(window, region, cut).slices
    surest = probabilities[1:, *inside].max(axis=0)
    row, column = np.unravel_index(int(surest.argmax()), surest.shape)
    top, left = region.top + int(row), region.left + int(column)
    return Region(top=top, left=left, bottom=top + 1, right=left + 1)


def explain_place(
    explained: ExplainedSlide, region: Region, place: Region, *, occluder_px: int, classes: list[str]
) -> tuple[bytes, dict[str, object]]:
    """Return the occlusion map of a place as a figure, and its numbers.

    Parameters
    ----------
    region : Region
        What a network with global context sees.
    place : Region
        The pixels whose class is explained.
    occluder_px : int
        Side of the square that hides pixels; 0 is a twelfth of the window.
    classes : list of str
        Names of the classes of the network.
    """
    network = explained.network
    field, cut = explained.seen(place, region)
    window = explained.read(field)
    inside = _relative_to(field, place, cut).slices
    before = probabilities_of_window(network, window[None], cut)[0][:, *inside].mean(axis=(1, 2))
    index = int(before.argmax())
    side = occluder_px or max(2, 2 * max(field.shape) // _SQUARES)
    falls = occlusion_map(
        network,
        window,
        lambda shown: shown[:, index, *inside].mean(axis=(1, 2)),
        cut=cut,
        fill=[(channel.mean - channel.low) / channel.scale for channel in explained.statistics],
        occluder_px=side,
        step_px=max(1, side // 2),
        batch=max(1, min(_LARGEST_BATCH, explained.largest_px // math.prod(field.shape))),
    )
    probability = float(before[index])
    title = f"{explained.slide.path.name}: {classes[index]} at {region_text(place)}, probability {probability:.3f}"
    figure = occlusion_figure(window, falls, _relative_to(field, place), title=title, class_index=index)
    row, column = np.unravel_index(int(falls.argmax()), falls.shape)
    return figure, {
        "class": classes[index],
        "probability": probability,
        "field": asdict(field),
        "occluder_px": side,
        "largest_fall": float(falls.max()),
        "row": field.top + int(row),
        "column": field.left + int(column),
    }


def show_responses(explained: ExplainedSlide, region: Region) -> tuple[bytes, list[Response]]:
    """Return the patches of a region to which layers respond most: as a figure, and in pixels of the slide."""
    network = explained.network
    field, cut = explained.seen(region, region)
    window, geometry = explained.read(field), network.geometry
    rows, columns = (geometry.input_px(length) for length in field.shape)
    found = strongest_responses(
        responses(network, window, layers_to_show(network)),
        (rows, columns),
        channels=_CHANNELS,
        count=_PATCHES,
        apart_px=_PATCH_PX // 2,
        border=cut,
    )
    by_channel = dict[tuple[str, int], list[Response]]()
    for response in found:
        by_channel.setdefault((response.layer, response.channel), []).append(response)
    figure = response_figure(
        [
            Row(
                title=f"{layer}\nchannel {channel}",
                patches=[_patch_around(window, response) for response in strongest],
                values=[response.value for response in strongest],
            )
            for (layer, channel), strongest in by_channel.items()
        ]
    )
    return figure, [response.shifted(field.top, field.left) for response in found]


def region_text(region: Region) -> str:
    """Return ROW,COLUMN,ROWS,COLUMNS of a region."""
    return ",".join(map(str, (region.top, region.left, *region.shape)))


def _patch_around(window: NDArray[np.float32], response: Response) -> NDArray[np.float32]:
    top, left = response.row - _PATCH_PX // 2, response.column - _PATCH_PX // 2
    patch = Region(top=top, left=left, bottom=top + _PATCH_PX, right=left + _PATCH_PX)
    return read_mirrored(lambda rows, columns: window[:, rows, columns], window.shape[1:], patch)


def _relative_to(window: Region, place: Region, cut: Cut = _WHOLE) -> Region:
    """Return a place of the slide in pixels of a window, or of its logits after a cut."""
    top, left = place.top - window.top - cut.top, place.left - window.left - cut.left
    return Region(top=top, left=left, bottom=top + place.shape[0], right=left + place.shape[1])
