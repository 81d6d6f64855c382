"""Prove on a piece of one slide that its tiles give what one pass of the network over the whole piece gives."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, sha256, write_json
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network
from pipeline.prediction.exactness import TOLERANCES, check_exactness, mismatch_of, richest_piece, small_grid
from pipeline.runtime.threads import use_threads
from pipeline.settings.stages import VerifyConfig
from pipeline.slides.intensity import normalize
from pipeline.slides.slide import open_slide
from pipeline.tiling.grid import Grid, Region
from pipeline.tiling.memory_budget import largest_window_px
from pipeline.tiling.plan import SlidePlan, read_plan

log = logging.getLogger(__name__)

_DOUBLE = 2  # float64 takes so many times the memory that is planned for float32


def run(*, weights: Path, plan: Path, output: Path, threads: int, memory_mb: int, config: VerifyConfig) -> None:
    """Write to ``output`` (JSON) how far tiles are from the whole; fail where they are not the same.

    ``weights`` is model.safetensors, with model.json beside it; ``plan`` has the slide, the stride, the halo and the
    statistics that prediction uses. Runs on the processor. Networks with global context are measured and never fail.
    """
    use_threads(threads)
    network, card = load_network(weights)
    if card.classes != config.classes:
        raise SlidemillError(f"{weights}: its classes are {card.classes}, the configuration has {config.classes}")
    planned = read_plan(plan)
    if planned.slide is None:
        raise SlidemillError(planned.error, stage="tile")
    grid = small_grid(planned.slide.grid, largest_px=largest_window_px(card, memory_mb) // _DOUBLE)
    place, image = _piece(planned.slide, grid, memory_mb)
    log.info("%s: rows %d, columns %d of %s px", planned.slide.slide, place.top, place.left, grid.shape)
    found = _verify(network, card, image, grid)
    origin = provenance("verify", config, weights=sha256(weights), slide=planned.slide.slide_sha256)
    write_json(output, found | {"piece": asdict(place), "grid": grid.to_dict(), "provenance": origin})
    broken = [check for check in found["checks"] if not check["holds"]]
    if broken:
        raise SlidemillError(
            f"{planned.slide.slide}: tiled does not equal whole in {broken[0]['precision']}: logits differ by up to "
            f"{broken[0]['max_difference']:.2g} (at most {broken[0]['tolerance']:.0e}), {broken[0]['flips']} of "
            f"{image[0].size} labels flip; measure stride_px and context_px of {weights.with_name('model.json')} again"
        )


def _piece(plan: SlidePlan, grid: Grid, memory_mb: int) -> tuple[Region, NDArray[np.float32]]:
    """Return the piece of the slide with most in it, as the network sees it."""
    with open_slide(plan.slide, memory_mb=memory_mb, view=plan.view) as slide:
        place = richest_piece(slide.read, slide.shape, grid.shape)
        return place, normalize(slide.read(*place.slices), plan.statistics)


def _verify(network: SegmentationModel, card: ModelCard, image: NDArray[np.float32], grid: Grid) -> dict[str, Any]:
    if card.geometry.context_px is None:
        share = mismatch_of(network, image, grid, num_classes=len(card.classes))
        log.info("global context: the law does not apply; %.2f %% of the labels differ from one pass", 100 * share)
        return {"law": "does not apply", "checks": [], "mismatch": share}
    checks = []
    for precision in TOLERANCES:
        check = check_exactness(network, image, grid, precision)
        log.info("%s, %s", check, "holds" if check.holds else "broken")
        checks.append(asdict(check) | {"holds": check.holds})
    law = "holds" if all(check["holds"] for check in checks) else "broken"
    return {"law": law, "checks": checks, "mismatch": None}
