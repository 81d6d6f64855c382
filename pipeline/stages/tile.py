"""Plan which tiles cover a slide, and measure its intensities."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.base.errors import SlideError
from pipeline.base.files import provenance, sha256, write_json
from pipeline.networks.model_card import read_card
from pipeline.settings.stage_sections import TileConfig
from pipeline.tiling.plan import Plan
from pipeline.tiling.plan_slide import plan_slide

log = logging.getLogger(__name__)


def run(*, sample: str, slide: Path, model: Path, output: Path, memory_mb: int, config: TileConfig) -> None:
    """Plan the tiles of one slide for one network.

    If the slide cannot be read, the plan holds the reason, and the stage stitch fails with it; other slides go on.

    Parameters
    ----------
    sample : str
        Id of the sample.
    slide : Path
        Slide to read.
    model : Path
        Description of the network (model.json).
    output : Path
        Plan to write (JSON).
    memory_mb : int
        Memory that predicting the tiles may use, in MB.
    config : TileConfig
        Tile size, tissue detection and how the slide is read.
    """
    card = read_card(model)
    try:
        plan = Plan(sample=sample, slide=plan_slide(slide, card, memory_mb, config))
    except SlideError as error:
        log.warning("%s", error)
        plan = Plan(sample=sample, slide=None, error=str(error))
    write_json(output, plan.to_dict() | {"provenance": provenance("tile", config, model_json=sha256(model))})
