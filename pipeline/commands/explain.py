"""Show what a trained network looks at on one slide: figures of occlusion, first filters and strongest responses."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, replacing, sha256, write_json
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network
from pipeline.prediction.exactness import richest_piece
from pipeline.prediction.explanation import (
    Response,
    first_layer_filters,
    layers_to_show,
    occlusion_map,
    probabilities_of_window,
    receptive_window,
    responses,
    strongest_responses,
)
from pipeline.prediction.explanation_figures import Row, filter_figure, occlusion_figure, response_figure
from pipeline.runtime.device import prepare
from pipeline.runtime.limits import cores
from pipeline.settings.schema import ImageConfig
from pipeline.slides.intensity import Statistics, measure_slide, normalize
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.grid import Region, read_mirrored
from pipeline.tiling.memory_budget import largest_window_px

log = logging.getLogger(__name__)

_REGION_PX = 256
_SQUARES = 24  # hidden one after the other along a side
_LARGEST_BATCH = 16
_CHANNELS, _PATCHES, _PATCH_PX = 6, 6, 48  # of each layer, of each channel, side


def run(
    *,
    slide: Path,
    weights: Path,
    output: Path,
    region: str = "",
    place: str = "",
    occluder_px: int = 0,
    threads: int = cores(),
    memory_mb: int = 4000,
    config: ImageConfig | None = None,
) -> None:
    """Write figures (PNG) and explanation.json.

    Parameters
    ----------
    slide : Path
        Slide to show.
    weights : Path
        Network file (model.safetensors, with model.json beside it).
    output : Path
        Folder to write occlusion.png, filters.png, responses.png and explanation.json into.
    region : str
        ROW,COLUMN,ROWS,COLUMNS to search for responses; without it, 256 px around the place, or of high contrast.
    place : str
        ROW,COLUMN or ROW,COLUMN,ROWS,COLUMNS to explain; without it, the most certain foreground pixel of the region.
    occluder_px : int
        Side of the square that hides pixels; 0 is a twelfth of what the network sees.
    threads, memory_mb : int
        CPU threads and memory (MB) that the command may use.
    config : ImageConfig, optional
        Section ``image`` of the configuration; without it, the first channels.
    """
    if occluder_px < 0:
        raise SlidemillError(f"--occluder-px must be at least 0, got {occluder_px}")
    device = prepare(threads)
    network, card = load_network(weights)
    network.to(device).to(memory_format=torch.channels_last)
    view = config or ImageConfig(channels=list(range(card.in_channels)))
    if len(view.channels) != card.in_channels:
        raise SlidemillError(
            f"{weights}: the network sees {card.in_channels} channels, --config has {len(view.channels)}"
        )
    with open_slide(slide, memory_mb=memory_mb, view=view) as opened:
        largest_px = largest_window_px(card, memory_mb)
        eye = _Eye(network=network, slide=opened, statistics=measure_slide(opened), largest_px=largest_px)
        given = _rectangle("place", place, opened) if place else None
        seen = _rectangle("region", region, opened) if region else _default_region(opened, given)
        given = given or _surest_place(eye, seen)
        if not _holds(seen, given):
            raise SlidemillError(f"--place {_words(given)} is not within --region {_words(seen)}; choose another")
        log.info("%s: region %s, place %s (row,column,rows,columns)", slide, _words(seen), _words(given))
        occlusion = _explain_place(eye, seen, given, occluder_px, card, output)
        found = _show_responses(eye, seen, output)
    _write(output / "filters.png", filter_figure(first_layer_filters(network)))
    origin = provenance("explain", view, weights=sha256(weights))
    write_json(
        output / "explanation.json",
        {"slide": str(slide), "region": asdict(seen), "place": asdict(given)}
        | {"occlusion": occlusion, "responses": [asdict(one) for one in found], "provenance": origin},
    )
    log.info("written to %s", output)


@dataclass(frozen=True, kw_only=True)
class _Eye:
    """A network before a slide."""

    network: SegmentationModel
    slide: Slide
    statistics: list[Statistics]
    largest_px: int

    def look(self, window: Region) -> NDArray[np.float32]:
        """Return the normalized pixels of a window, mirrored beyond the slide."""
        if math.prod(window.shape) > self.largest_px:
            rows, columns = window.shape
            raise SlidemillError(
                f"a window of {rows} x {columns} px (halo included) is more than --memory-mb allows "
                f"({self.largest_px} px); choose a smaller --region or --place, or raise it"
            )
        return normalize(read_mirrored(self.slide.read, self.slide.shape, window), self.statistics)

    def around(self, region: Region) -> Region:
        """Return the window that all logits of a region depend on."""
        return receptive_window(self.network, region, region)


def _rectangle(flag: str, text: str, slide: Slide) -> Region:
    """Read ROW,COLUMN or ROW,COLUMN,ROWS,COLUMNS and check that it lies on the slide."""
    parts = text.split(",")
    if len(parts) not in ({2, 4} if flag == "place" else {4}) or not all(part.strip().isdecimal() for part in parts):
        words = "ROW,COLUMN or ROW,COLUMN,ROWS,COLUMNS" if flag == "place" else "ROW,COLUMN,ROWS,COLUMNS"
        raise SlidemillError(f"--{flag} is {words} in whole numbers, got {text!r}")
    top, left, *shape = map(int, parts)
    rows, columns = shape or (1, 1)
    chosen = Region(top=top, left=left, bottom=top + rows, right=left + columns)
    if not rows * columns or chosen.bottom > slide.shape[0] or chosen.right > slide.shape[1]:
        raise SlidemillError(f"--{flag} {text} is not on {slide.path}, which has {slide.shape} px (rows, columns)")
    return chosen


def _default_region(slide: Slide, place: Region | None) -> Region:
    """Return a square around the place, or where the slide varies most."""
    rows, columns = (min(_REGION_PX, length) for length in slide.shape)
    if place is None:
        return richest_piece(slide.read, slide.shape, (rows, columns))
    rows, columns = max(rows, place.shape[0]), max(columns, place.shape[1])
    top = min(max((place.top + place.bottom - rows) // 2, 0), slide.shape[0] - rows)
    left = min(max((place.left + place.right - columns) // 2, 0), slide.shape[1] - columns)
    return Region(top=top, left=left, bottom=top + rows, right=left + columns)


def _surest_place(eye: _Eye, region: Region) -> Region:
    """Return the pixel of the region with the highest probability of a class other than the first."""
    probabilities = _probabilities(eye, region, eye.look(eye.around(region))[None])[0]
    surest = probabilities[1:].max(axis=0)
    row, column = np.unravel_index(int(surest.argmax()), surest.shape)
    top, left = region.top + int(row), region.left + int(column)
    return Region(top=top, left=left, bottom=top + 1, right=left + 1)


def _probabilities(eye: _Eye, region: Region, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of a region from windows around it: (N, classes, rows, columns)."""
    shown = probabilities_of_window(eye.network, windows)
    return shown[..., *_within(region, eye.around(region), eye.network.geometry.halo_px).slices]


def _explain_place(
    eye: _Eye, region: Region, place: Region, occluder_px: int, card: ModelCard, output: Path
) -> dict[str, object]:
    """Draw the occlusion map of a place; return its numbers."""
    field = receptive_window(eye.network, place, region)
    window = eye.look(field)
    inner = _within(place, field, eye.network.geometry.halo_px).slices
    before = probabilities_of_window(eye.network, window[None])[0][:, *inner].mean(axis=(1, 2))
    index = int(before.argmax())
    side = occluder_px or max(2, 2 * max(field.shape) // _SQUARES)
    falls = occlusion_map(
        eye.network,
        window,
        lambda shown: shown[:, index, *inner].mean(axis=(1, 2)),
        fill=[(channel.mean - channel.low) / channel.scale for channel in eye.statistics],
        occluder_px=side,
        step_px=max(1, side // 2),
        batch=max(1, min(_LARGEST_BATCH, eye.largest_px // math.prod(field.shape))),
    )
    probability = float(before[index])
    title = f"{eye.slide.path.name}: {card.classes[index]} at {_words(place)}, probability {probability:.3f}"
    picture = occlusion_figure(window, falls, _within(place, field, 0), title=title, class_index=index)
    _write(output / "occlusion.png", picture)
    row, column = np.unravel_index(int(falls.argmax()), falls.shape)
    return {
        "class": card.classes[index],
        "probability": probability,
        "field": asdict(field),
        "occluder_px": side,
        "largest_fall": float(falls.max()),
        "row": field.top + int(row),
        "column": field.left + int(column),
    }


def _show_responses(eye: _Eye, region: Region, output: Path) -> list[Response]:
    """Draw the patches to which layers respond most; return them, in pixels of the slide."""
    field = eye.around(region)
    window, geometry = eye.look(field), eye.network.geometry
    rows, columns = (geometry.input_px(length) for length in field.shape)
    found = strongest_responses(
        responses(eye.network, window, layers_to_show(eye.network)),
        (rows, columns),
        channels=_CHANNELS,
        count=_PATCHES,
        apart_px=_PATCH_PX // 2,
        border_px=geometry.halo_px,
    )
    together = dict[tuple[str, int], list[Response]]()
    for one in found:
        together.setdefault((one.layer, one.channel), []).append(one)
    drawn = [
        Row(
            title=f"{layer}\nchannel {channel}",
            patches=[_patch(window, one) for one in some],
            values=[one.value for one in some],
        )
        for (layer, channel), some in together.items()
    ]
    _write(output / "responses.png", response_figure(drawn))
    return [one.moved(field.top, field.left) for one in found]


def _patch(window: NDArray[np.float32], one: Response) -> NDArray[np.float32]:
    top, left = one.row - _PATCH_PX // 2, one.column - _PATCH_PX // 2
    around = Region(top=top, left=left, bottom=top + _PATCH_PX, right=left + _PATCH_PX)
    return read_mirrored(lambda rows, columns: window[:, rows, columns], window.shape[1:], around)


def _within(place: Region, field: Region, cut_px: int) -> Region:
    """Return a place of the slide in pixels of a window, or of its logits, from which ``cut_px`` was cut."""
    top, left = place.top - field.top - cut_px, place.left - field.left - cut_px
    return Region(top=top, left=left, bottom=top + place.shape[0], right=left + place.shape[1])


def _holds(region: Region, place: Region) -> bool:
    rows, columns = region.top <= place.top, region.left <= place.left
    return rows and columns and place.bottom <= region.bottom and place.right <= region.right


def _words(region: Region) -> str:
    return ",".join(map(str, (region.top, region.left, *region.shape)))


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
