"""Check on a piece of one slide that tiled prediction, and the random field, equal those of the whole piece."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base.detector import DetectionModel
from models.base.interface import SegmentationModel
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, sha256, write_json
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network
from pipeline.prediction.detections.verification import differing_objects
from pipeline.prediction.verification import (
    TOLERANCES,
    check_exactness,
    check_field,
    mismatch_of,
    richest_piece,
    small_grid,
)
from pipeline.project.stage_settings import masks_of
from pipeline.runtime.threads import use_threads
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import MaskConfig
from pipeline.settings.stage_sections import VerifyConfig
from pipeline.slides.intensity import normalize
from pipeline.slides.slide import open_slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.memory_budget import largest_window_px
from pipeline.tiling.plan import read_plans

log = logging.getLogger(__name__)

_DOUBLE = 2  # memory of float64 over that of float32, which is planned


def run(*, network: Path, plan: Path, output: Path, threads: int, memory_mb: int, config: VerifyConfig) -> None:
    """Compare tiled and whole prediction of a piece of one slide on the CPU; fail if they differ.

    A network with global context is measured only: of one that detects objects, how many of these differ.

    Parameters
    ----------
    network : Path
        Network file (model.safetensors, with model.json beside it).
    plan : Path
        Plan of the slide; of a stack that is segmented plane by plane, the plane in the middle is checked.
    output : Path
        JSON to write: how far the predictions differ.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Memory that the job may use, in MB.
    config : VerifyConfig
        Classes of the configuration, and its random field if there is one.
    """
    use_threads(threads)
    loaded, card = load_network(network, classes=config.classes)
    if not plan.is_file():
        raise SlidemillError(f"{plan}: there is no plan; the ledger of its stage `tile` says why")
    plans = read_plans(plan)
    planned = plans[len(plans) // 2]  # of a stack, the plane in the middle
    grid = small_grid(planned.grid, largest_px=largest_window_px(card, memory_mb) // _DOUBLE)
    with open_slide(planned.slide, memory_mb=memory_mb, view=planned.view) as slide:
        place = richest_piece(slide.read, slide.shape, grid.shape)
        image = normalize(slide.read(*place.slices), planned.statistics)
    log.info("%s: rows %d, columns %d of %s px", planned.slide, place.top, place.left, grid.shape)
    found = _verify(loaded, card, image, grid)
    crf = masks_of(MaskConfig(crf=config.crf), network).crf
    found["crf"] = _verify_field(loaded, image, grid, crf) if isinstance(crf, CrfConfig) else []
    if not all(check["holds"] for check in found["crf"]):
        found["law"] = "broken"
    origin = provenance("verify", config, weights=sha256(network), slide=planned.slide_sha256)
    write_json(output, found | {"piece": asdict(place), "grid": asdict(grid), "provenance": origin})
    broken = [check for check in found["checks"] if not check["holds"]]
    if broken:
        raise SlidemillError(
            f"{planned.slide}: tiled does not equal whole in {broken[0]['precision']}: logits differ by up to "
            f"{broken[0]['max_difference']:.2g} (at most {broken[0]['tolerance']:.0e}), {broken[0]['flips']} of "
            f"{image[0].size} labels differ; stride_px or context_px in {network.with_name('model.json')} is wrong"
        )
    if broken := [check for check in found["crf"] if not check["holds"]]:
        raise SlidemillError(
            f"{planned.slide}: the random field in blocks is not that of the whole in {broken[0]['precision']}; "
            f"probabilities differ by up to {broken[0]['max_difference']:.2g} (at most {broken[0]['tolerance']:.0e}); "
            "this is a bug of Slidemill: set masks.crf to null, and report it"
        )


def _verify(network: SegmentationModel, card: ModelCard, image: NDArray[np.float32], grid: Grid) -> dict[str, Any]:
    if isinstance(network, DetectionModel):
        share = differing_objects(network, image, grid)
        log.info("objects are found window by window: %.2f %% of them differ between tiles and one pass", 100 * share)
        return {"law": "does not apply", "checks": [], "mismatch": share}
    if card.geometry.context_px is None:
        share = mismatch_of(network, image, grid, num_classes=len(card.classes))
        log.info("global context: tiled and whole prediction need not agree; %.2f %% of the labels differ", 100 * share)
        return {"law": "does not apply", "checks": [], "mismatch": share}
    checks = []
    for precision in TOLERANCES:
        check = check_exactness(network, image, grid, precision)
        log.info("%s, %s", check, "holds" if check.holds else "broken")
        if check.jumps and check.precision == "float32" and check.flips:
            log.warning(
                "max unpooling: in float32, as in prediction, rounding decides where values of a pooling window are "
                "nearly equal; so %d of %d labels differ between tiles and the whole, and float64 decides",
                check.flips,
                image[0].size,
            )
        checks.append(asdict(check) | {"holds": check.holds})
    law = "holds" if all(check["holds"] for check in checks) else "broken"
    return {"law": law, "checks": checks, "mismatch": None}


def _verify_field(
    network: SegmentationModel, image: NDArray[np.float32], grid: Grid, config: CrfConfig
) -> list[dict[str, Any]]:
    checks = [check_field(network, image, grid, config, precision) for precision in TOLERANCES]
    for check in checks:
        log.info("random field: %s, %s", check, "holds" if check.holds else "broken")
    return [asdict(check) | {"holds": check.holds} for check in checks]
