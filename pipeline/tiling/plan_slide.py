"""Make the plan of a slide: tile grid, intensity statistics of the whole slide, tiles without tissue, regions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import shapely.geometry

from pipeline.base.files import sha256
from pipeline.networks.model_card import ModelCard
from pipeline.project.drop.image_files import parts_of
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.intensity import measure_slide
from pipeline.slides.regions import Regions
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import SlidePlan, plan_grid
from pipeline.tiling.tissue import Tissue, find_tissue, runs_with_tissue

log = logging.getLogger(__name__)

_SIDES_OF_REGIONS_PX = (2048, 1024, 512, 256)  # of tiles that are tried


def plan_slide(path: Path, card: ModelCard, memory_mb: int, config: TileConfig) -> SlidePlan:
    """Plan the tiles of the slide at ``path`` for a network, and measure its intensities.

    Raises
    ------
    SlideError
        If the slide cannot be read, or one piece of it does not fit ``memory_mb``.
    """
    with open_slide(path, memory_mb=memory_mb, view=config.image) as slide:
        content = content_sha256(path)
        return plan_open_slide(slide, card, memory_mb, config, slide_sha256=content, tissue=tissue_of(slide, config))


def content_sha256(slide: Path) -> str:
    """Return the SHA-256 of a slide, with the files beside it that belong to it."""
    return sha256(slide, *parts_of(slide))


def tissue_of(slide: Slide, config: TileConfig) -> Tissue | None:
    """Return the tissue of a slide; None if it is not to be found, or cannot be."""
    return find_tissue(slide) if config.skip_glass else None


def plan_open_slide(
    slide: Slide,
    card: ModelCard,
    memory_mb: int,
    config: TileConfig,
    *,
    slide_sha256: str,
    tissue: Tissue | None,
    regions: Regions | None = None,
) -> SlidePlan:
    """Plan the tiles of an open slide.

    Parameters
    ----------
    slide_sha256 : str
        From :func:`content_sha256`.
    tissue : Tissue or None
        Tiles without it are skipped, unless tiles are blended: each needs its neighbours then.
    regions : Regions or None
        What its mask is cut to; None: it is not cut. Of a few sizes of tiles, unless one is configured, it gets the one
        with which the fewest pixels are computed.
    """
    statistics = measure_slide(slide)
    about = SlidePlan(
        slide=slide.path,
        slide_sha256=slide_sha256,
        grid=plan_grid(slide.shape, card, memory_mb, tile_px=config.tile_px, mirror_px=config.mirror_px),
        view=config.image,
        statistics=statistics,
        pixel_size_um=slide.pixel_size_um,
        regions=None if regions is None else [shapely.geometry.mapping(polygon) for polygon in regions.polygons],
    )
    grids = [about.grid] if regions is None or config.tile_px else list(_grids_of_regions(about.grid, card, config))
    plan = min((_with_grid(about, grid, tissue) for grid in grids), key=lambda one: one.window_px)
    grid, names = plan.grid, ", ".join(slide.channel_names)
    log.info("%s: %s px, channels %s, intensities %s", slide.path, slide.shape, names, statistics)
    log.info("%d tiles of %s px, %.2f pixels computed per pixel", grid.count, grid.tile, grid.redundancy)
    if skipped := grid.count - plan.count:
        share = 100 * skipped / grid.count
        log.info("%s: %d of %d tiles (%.0f %%) are glass, or in no region", slide.path, skipped, grid.count, share)
    return plan


def _with_grid(plan: SlidePlan, grid: Grid, tissue: Tissue | None) -> SlidePlan:
    runs = None if tissue is None or grid.overlap_px else runs_with_tissue(tissue, grid)
    return replace(plan, grid=grid, tissue=runs)


def _grids_of_regions(largest: Grid, card: ModelCard, config: TileConfig) -> Iterator[Grid]:
    """Yield grids whose tiles fit the memory: a large one may hold several small regions, and all that is between."""
    yield largest
    for side in () if largest.overlap_px else _SIDES_OF_REGIONS_PX:
        grid = Grid.plan(largest.shape, geometry=card.geometry, tile_px=side, mirror_px=config.mirror_px)
        if grid.window_px < largest.window_px:
            yield grid
