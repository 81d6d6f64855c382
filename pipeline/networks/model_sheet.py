"""The model sheet: measured size, cost and geometry of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

import models
from models.base.cost import bytes_per_px, count_parameters, gflops_per_mpx
from models.base.geometry import Geometry, Tiling


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Measurements of a network.

    Attributes
    ----------
    parameters
        Number of weights.
    gflops_per_mpx
        10⁹ floating-point operations per 10⁶ pixels of input; a multiply-add is two.
    bytes_per_px
        Peak memory of its float32 activations per pixel of a window.
    geometry
        Stride and measured context.
    options
        Names and defaults of its options.
    paper
        Where it was published.
    """

    name: str
    parameters: int
    gflops_per_mpx: float
    bytes_per_px: int
    geometry: Geometry
    options: Mapping[str, object]
    paper: str

    @property
    def tiling(self) -> Tiling:
        """How tiles are joined."""
        return self.geometry.tiling


def model_sheet(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 2,
    heads: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> Sheet:
    """Measure a network without its weights; arguments are those of :func:`models.build`."""
    with torch.device("meta"):
        network = models.build(name, in_channels=in_channels, num_classes=num_classes, heads=heads, options=options)
    geometry = network.geometry
    return Sheet(
        name=name,
        parameters=count_parameters(network),
        gflops_per_mpx=round(gflops_per_mpx(network, in_channels=in_channels, sampling=geometry), 1),
        bytes_per_px=bytes_per_px(network, in_channels=in_channels, sampling=geometry),
        geometry=geometry,
        options=models.options_of(name),
        paper=network.paper,
    )
