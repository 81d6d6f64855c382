"""Measure what a slide looks like: brightness, contrast, colour, focus, saturation, tissue."""

from __future__ import annotations

import math
from pathlib import Path

from pipeline.base.errors import SlideError
from pipeline.base.files import provenance, write_json
from pipeline.settings.stage_sections import InspectConfig
from pipeline.slides.appearance import appearance, windows
from pipeline.slides.slide import open_slide


def run(*, slide: Path, output: Path, memory_mb: int, config: InspectConfig) -> None:
    """Write the appearance of a slide, measured on up to 16 windows.

    If the slide cannot be read, the file holds the reason, and the stage succeeds: the stage tile reports it.

    Parameters
    ----------
    slide : Path
        Slide to read.
    output : Path
        JSON file to write.
    memory_mb : int
        Largest piece of the slide to hold, in MB.
    config : InspectConfig
        How the slide is read.
    """
    look: dict[str, float] = {}
    error = ""
    try:
        with open_slide(slide, memory_mb=memory_mb, view=config.image) as opened:
            look = appearance([opened.read(rows, columns) for rows, columns in windows(opened.shape)])
    except SlideError as reason:
        error = str(reason)
    if not all(math.isfinite(number) for number in look.values()):
        look, error = {}, f"{slide}: pixels are NaN or infinite"
    write_json(output, {"appearance": look, "error": error, "provenance": provenance("inspect", config)})
