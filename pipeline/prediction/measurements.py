"""What the prediction of one slide measures; the stage ``predict`` records it in its ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of the prediction of one slide, as JSON types.

    The seconds are a share of those of the job: slides whose windows go through the network together share the time of
    that by their pixels, interrupted runs included. So their sum is the time of the job, without imports.

    Attributes
    ----------
    pixels
        Pixels that went through the network, without skipped glass.
    wall_s, network_s
        Time from the first window to the last, and the part of it spent in the network.
    reading_s, writing_s
        The rest of it: time that the network waited for windows, and for writing. Of several devices, all these are the
        mean.
    uncertain
        Share of pixels whose best class is less than three times as probable as the second; None if all is glass.
    tile_mismatch
        For a network with global context: share of the pixels where windows overlap that they label differently.
    differing_px, compared_px
        Numerator and denominator of the tile mismatch; both 0 for networks with exact tiles.
    probabilities, heads, objects
        Whether they were kept.
    device, devices, precision, threads
        Of the job; ``device`` is the first of its ``devices``.
    """

    pixels: int
    wall_s: float
    network_s: float
    reading_s: float
    writing_s: float
    uncertain: float | None
    tile_mismatch: float | None
    differing_px: int
    compared_px: int
    probabilities: bool
    device: str
    precision: str
    threads: int
    heads: bool = False  # not in ledgers of earlier versions; so is what follows
    devices: int = 1
    objects: bool = False

    @classmethod
    def from_found(cls, found: Mapping[str, Any]) -> Self:
        """Read the entry of a ledger (``found``), which may have more."""
        return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})

    @classmethod
    def of_planes(cls, planes: Sequence[Self]) -> Self:
        """Return the measurements of a stack from those of its planes, which have one shape."""
        (first, *others) = planes
        if not others:
            return first
        summed = ("pixels", "wall_s", "network_s", "reading_s", "writing_s", "differing_px", "compared_px")
        sums = {name: sum(getattr(plane, name) for plane in planes) for name in summed}
        known = [plane.uncertain for plane in planes if plane.uncertain is not None]
        return replace(
            first,
            **sums,
            uncertain=sum(known) / len(planes) if known else None,  # of a plane of glass, no pixel is
            tile_mismatch=None if first.tile_mismatch is None else sums["differing_px"] / max(1, sums["compared_px"]),
        )
