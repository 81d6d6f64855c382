"""Show what a trained network looks at on one slide: occlusion, first filters and strongest responses."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, replacing, sha256, write_json
from pipeline.networks.weights_file import load_network
from pipeline.prediction.explained.figures import filter_figure
from pipeline.prediction.explained.place import ExplainedSlide, explain_place, region_text, show_responses, surest_place
from pipeline.prediction.explained.responses import first_layer_filters
from pipeline.prediction.verification import richest_piece
from pipeline.runtime.device import prepare
from pipeline.runtime.job_limits import cores
from pipeline.settings.schema import MIRROR_PX, ImageConfig
from pipeline.slides.intensity import measure_slide
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.grid import Region
from pipeline.tiling.memory_budget import largest_window_px

log = logging.getLogger(__name__)

_REGION_PX = 256


def run(
    *,
    slide: Path,
    network: Path,
    output: Path,
    region: str = "",
    place: str = "",
    occluder_px: int = 0,
    mirror_px: int = MIRROR_PX,
    threads: int = cores(),
    memory_mb: int = 4000,
    config: ImageConfig | None = None,
) -> None:
    """Write figures (PNG) and explanation.json.

    Parameters
    ----------
    slide : Path
        Slide to show.
    network : Path
        Network file (model.safetensors, with model.json beside it).
    output : Path
        Folder to write occlusion.png, filters.png, responses.png and explanation.json into.
    region : str
        ROW,COLUMN,ROWS,COLUMNS to show responses of; without it, 256 px around the place, or where pixels vary most.
    place : str
        ROW,COLUMN or ROW,COLUMN,ROWS,COLUMNS to explain; without it, the most certain foreground pixel of the region.
    occluder_px : int
        Side in px of the square that hides pixels; 0 means 1/12 of the window that determines the class at the place.
    mirror_px : int
        Mirrored pixels around the slide: tiling.mirror_px of the configuration.
    threads : int
        CPU threads that the command may use.
    memory_mb : int
        Memory that the command may use, in MB.
    config : ImageConfig, optional
        Section ``image`` of the configuration as JSON; without it, the first channels.
    """
    if occluder_px < 0:
        raise SlidemillError(f"--occluder-px must be at least 0, got {occluder_px}")
    (device,) = prepare(threads)
    loaded, card = load_network(network)
    loaded.to(device).to(memory_format=torch.channels_last)
    view = config or ImageConfig(channels=list(range(card.in_channels)))
    if len(view.channels) != card.in_channels:
        raise SlidemillError(
            f"{network}: the network sees {card.in_channels} channels, --config has {len(view.channels)}"
        )
    with open_slide(slide, memory_mb=memory_mb, view=view) as opened:
        largest_px = largest_window_px(card, memory_mb)
        explained = ExplainedSlide(
            network=loaded,
            slide=opened,
            statistics=measure_slide(opened),
            largest_px=largest_px,
            mirror_px=mirror_px,
        )
        given = _rectangle("place", place, opened) if place else None
        seen = _rectangle("region", region, opened) if region else _default_region(opened, given)
        given = given or surest_place(explained, seen)
        both = zip(seen.slices, given.slices, strict=True)
        if not all(outer.start <= inner.start and inner.stop <= outer.stop for outer, inner in both):
            raise SlidemillError(
                f"--place {region_text(given)} is not within --region {region_text(seen)}; choose another"
            )
        log.info("%s: region %s, place %s (row,column,rows,columns)", slide, region_text(seen), region_text(given))
        occlusion, numbers = explain_place(explained, seen, given, occluder_px=occluder_px, classes=card.classes)
        strongest, found = show_responses(explained, seen)
    filters = filter_figure(first_layer_filters(loaded))
    for name, figure in (("occlusion", occlusion), ("responses", strongest), ("filters", filters)):
        with replacing(output / f"{name}.png") as temporary:
            temporary.write_bytes(figure)
    origin = provenance("explain", view, weights=sha256(network))
    write_json(
        output / "explanation.json",
        {"slide": str(slide), "region": asdict(seen), "place": asdict(given)}
        | {"occlusion": numbers, "responses": [asdict(response) for response in found], "provenance": origin},
    )
    log.info("written to %s", output)


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
