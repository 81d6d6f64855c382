"""Make the plan of a slide: tile grid, intensity statistics of the whole slide, tiles without tissue."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.base.files import sha256
from pipeline.networks.model_card import ModelCard
from pipeline.project.drop.image_files import parts_of
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.intensity import measure_slide
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import SlidePlan, plan_grid
from pipeline.tiling.tissue import find_tissue, runs_with_tissue

log = logging.getLogger(__name__)


def plan_slide(path: Path, card: ModelCard, memory_mb: int, config: TileConfig) -> SlidePlan:
    """Plan the tiles of the slide at ``path`` for a network, and measure its intensities.

    Raises
    ------
    SlideError
        If the slide cannot be read, or one piece of it does not fit ``memory_mb``.
    """
    with open_slide(path, memory_mb=memory_mb, view=config.image) as slide:
        grid = plan_grid(slide.shape, card, memory_mb, tile_px=config.tile_px, mirror_px=config.mirror_px)
        statistics = measure_slide(slide)
        tissue = _tissue(slide, grid) if config.skip_glass else None
        names = ", ".join(slide.channel_names)
        log.info("%s: %s px, channels %s, intensities %s", path, slide.shape, names, statistics)
        log.info("%d tiles of %s px, %.2f pixels computed per pixel", grid.count, grid.tile, grid.redundancy)
        return SlidePlan(
            slide=path,
            slide_sha256=sha256(path, *parts_of(path)),
            grid=grid,
            view=config.image,
            statistics=statistics,
            pixel_size_um=slide.pixel_size_um,
            tissue=tissue,
        )


def _tissue(slide: Slide, grid: Grid) -> list[tuple[int, int]] | None:
    """Return the tiles to segment; None: all, also if tiles are blended, since each needs its neighbours."""
    found = None if grid.overlap_px else find_tissue(slide)
    if found is None:
        return None
    runs = runs_with_tissue(found, grid)
    skipped = grid.count - sum(stop - first for first, stop in runs)
    log.info("%s: %d of %d tiles (%.0f %%) are glass", slide.path, skipped, grid.count, 100 * skipped / grid.count)
    return runs
