"""What was measured while a batch was predicted, beside its predictions: times differ, masks must not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What one job of the stage ``predict`` measured.

    Attributes
    ----------
    pixels
        Of all slides of the batch that went through the network; glass that was skipped did not.
    wall_s, network_s
        Time from the first window to the last, without imports; the part of it spent in the network.
    differing_px, compared_px
        The tile mismatch of a network with global context: pixels whose label differs between two windows, of those
        that two windows were compared at. Both 0 for exact networks, whose windows agree.
    reading_s, writing_s
        Time that the network waited for windows, and for labels to be written.
    device, precision, threads
        What it ran on.
    uncertain
        By sample: share of its pixels whose best class is less than three times as probable as the second.
    mismatch
        By sample, for a network with global context: its own tile mismatch.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON types."""
        return asdict(self)


def read_speed(path: Path) -> Speed:
    """Read what the stage ``predict`` wrote."""
    content = read_json(path)
    try:
        return Speed(**{field.name: content[field.name] for field in fields(Speed)})
    except KeyError as error:
        raise SlidemillError(f"{path}: no {error} in this measurement; remove it and run again") from error
