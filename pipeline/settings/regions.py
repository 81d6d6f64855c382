"""The part of the configuration about regions: named areas of slides, drawn in QuPath or ImageJ."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.section import Place, Section


class RegionsConfig(Section):
    """Named areas of slides, which objects and areas are counted in (`results/regions.csv`). Without a file, the tissue
    that was found is the one region of a bright-field slide, the whole slide of any other.
    """

    folder: Place = Field(
        "data/regions",
        description="Optional outlines of QuPath (`.geojson`) or ImageJ (`.roi`, or sets of them in `.zip`) under the "
        "names of the slides; the folder may be missing. Areas of one name are one region.",
    )
    compute: Literal["everywhere", "inside"] = Field(
        "everywhere",
        description="`inside`: slides that have such a file are segmented in their regions only, and their masks are "
        "empty outside. Tiles, and parts of tiles, more than 64 px from all regions are left out, except by networks "
        "with global context. Inside, labels are those of the whole slide.",
    )
