"""Plan one slide: its tile grid and the intensity statistics of all of it. The pixels of a slide are never copied."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.base.errors import SlideError
from pipeline.base.files import provenance, sha256, write_json
from pipeline.networks.model_card import read_card
from pipeline.settings.stages import TileConfig
from pipeline.tiling.plan import Plan
from pipeline.tiling.plan_slide import plan_slide

log = logging.getLogger(__name__)


def run(*, sample: str, slide: Path, model: Path, output: Path, memory_mb: int, config: TileConfig) -> None:
    """Plan the tiles of ``slide`` for the network that ``model`` (model.json) describes, and write the plan (JSON).

    A slide that cannot be read gets a plan with the reason in it, and its stitch fails with it later: the other
    slides of its batch go on.
    """
    card = read_card(model)
    try:
        plan = Plan(sample=sample, slide=plan_slide(slide, card, memory_mb, config))
    except SlideError as error:
        log.warning("%s", error)
        plan = Plan(sample=sample, slide=None, error=str(error))
    write_json(output, plan.to_dict() | {"provenance": provenance("tile", config, model_json=sha256(model))})
