"""Measurements of a prediction, in a file beside the predictions, which do not depend on times."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measurements of one job of the stage ``predict``.

    Attributes
    ----------
    pixels
        Pixels of all slides of the batch that went through the network, without skipped glass.
    wall_s, network_s
        Time from the first window to the last, without imports, and the part of it spent in the network.
    differing_px, compared_px
        The tile mismatch of a network with global context: pixels whose label differs between two windows, and pixels
        at which windows were compared. Both 0 for networks with exact tiles.
    reading_s, writing_s
        Time that the network waited for windows, and for writing.
    device, precision, threads
        Of the job.
    uncertain
        By sample: share of pixels whose best class is less than three times as probable as the second.
    mismatch
        By sample, for a network with global context: tile mismatch.
    """

    pixels: int
    wall_s: float
    network_s: float
    reading_s: float
    writing_s: float
    differing_px: int
    compared_px: int
    device: str
    precision: str
    threads: int
    uncertain: dict[str, float]
    mismatch: dict[str, float]


def read_speed(path: Path) -> Speed:
    """Read what the stage ``predict`` wrote."""
    content = read_json(path)
    try:
        return Speed(**{field.name: content[field.name] for field in fields(Speed)})
    except KeyError as error:
        raise SlidemillError(f"{path}: no {error} in this measurement; remove it and run again") from error
