"""Make the plan of a slide: tile grid, intensity statistics of the whole slide, tiles without tissue, regions."""

from __future__ import annotations

import logging
from pathlib import Path

import shapely.geometry

from pipeline.base.files import sha256
from pipeline.networks.model_card import ModelCard
from pipeline.project.drop.image_files import parts_of
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.intensity import measure_slide
from pipeline.slides.regions import Regions
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.plan import SlidePlan, plan_grid
from pipeline.tiling.tissue import Tissue, find_tissue, runs_with_tissue

log = logging.getLogger(__name__)


def plan_slide(path: Path, card: ModelCard, memory_mb: int, config: TileConfig) -> SlidePlan:
    """Plan the tiles of the slide at ``path`` for a network, and measure its intensities.

    Raises
    ------
    SlideError
        If the slide cannot be read, or one piece of it does not fit ``memory_mb``.
    """
    with open_slide(path, memory_mb=memory_mb, view=config.image) as slide:
        return plan_open_slide(slide, card, memory_mb, config, tissue=tissue_of(slide, config))


def tissue_of(slide: Slide, config: TileConfig) -> Tissue | None:
    """Return the tissue of a slide; None if it is not to be found, or cannot be."""
    return find_tissue(slide) if config.skip_glass else None


def plan_open_slide(
    slide: Slide,
    card: ModelCard,
    memory_mb: int,
    config: TileConfig,
    *,
    tissue: Tissue | None,
    regions: Regions | None = None,
) -> SlidePlan:
    """Plan the tiles of an open slide.

    Parameters
    ----------
    tissue : Tissue or None
        Tiles without it are skipped, unless tiles are blended: each needs its neighbours then.
    regions : Regions or None
        What its mask is cut to; None: it is not cut.
    """
    grid = plan_grid(slide.shape, card, memory_mb, tile_px=config.tile_px, mirror_px=config.mirror_px)
    statistics = measure_slide(slide)
    names = ", ".join(slide.channel_names)
    log.info("%s: %s px, channels %s, intensities %s", slide.path, slide.shape, names, statistics)
    log.info("%d tiles of %s px, %.2f pixels computed per pixel", grid.count, grid.tile, grid.redundancy)
    plan = SlidePlan(
        slide=slide.path,
        slide_sha256=sha256(slide.path, *parts_of(slide.path)),
        grid=grid,
        view=config.image,
        statistics=statistics,
        pixel_size_um=slide.pixel_size_um,
        tissue=None if tissue is None or grid.overlap_px else runs_with_tissue(tissue, grid),
        regions=None if regions is None else [shapely.geometry.mapping(polygon) for polygon in regions.polygons],
    )
    if skipped := grid.count - plan.count:
        share = 100 * skipped / grid.count
        log.info("%s: %d of %d tiles (%.0f %%) are glass, or in no region", slide.path, skipped, grid.count, share)
    return plan
