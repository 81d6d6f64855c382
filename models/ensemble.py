"""Several networks as one: the average of their probabilities, at several scales and under flips and rotations.

The average of networks that hold the first law holds it too: windows are as far apart, and reach as far, as the most
demanding member asks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.base.geometry import Geometry, round_up
from models.base.interface import SegmentationModel
from models.layers.blocks import check_choice

Symmetries = Literal["none", "flips", "all"]
SCALES = (0.25, 0.5, 1, 2, 4)
_LEAST_PROBABILITY = 1e-30


class Ensemble(SegmentationModel):
    """The average of networks of the same channels and classes.

    Parameters
    ----------
    in_channels, num_classes : int
        Channels of the image and classes of the logits.
    members : list of mapping
        ``{"architecture": name, "options": {...}}`` of each network.
    scales : list of float
        Magnifications of the image for every member: 0.25, 0.5, 1, 2 or 4. The image is averaged down or interpolated
        bilinearly, and so are the probabilities on the way back.
    symmetries : {"none", "flips", "all"}
        Average over the 4 mirror images, or over all 8 symmetries of the square.
    """

    paper = "average of its members"

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        members: Sequence[Mapping[str, Any]],
        scales: Sequence[float] = (1,),
        symmetries: Symmetries = "none",
    ) -> None:
        super().__init__()
        check_choice("symmetries", symmetries, get_args(Symmetries))
        for scale in scales:
            check_choice("scale", scale, SCALES)
        self.members = nn.ModuleList(
            models.build(
                member["architecture"],
                in_channels=in_channels,
                num_classes=num_classes,
                options=member["options"],
            )
            for member in members
        )
        self.views = [
            (network, scale, turns, flip)
            for network, scale in product(range(len(members)), scales)
            for turns, flip in _SYMMETRIES[symmetries]
        ]
        self.scales = list(scales)

    @cached_property
    def geometry(self) -> Geometry:
        """The least common stride, the widest context and what the widest margin leaves."""
        parts = [_scaled(member.geometry, scale) for member in self.members for scale in self.scales]  # type: ignore[arg-type]
        stride = math.lcm(*(stride for stride, _, _ in parts))
        contexts = [context for _, context, _ in parts]
        return Geometry(
            stride_px=stride,
            context_px=None if None in contexts else max(context for context in contexts if context is not None),
            margin_px=round_up(max(margin for _, _, margin in parts), stride),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H - 2 margin, W - 2 margin) logarithms of the averaged probabilities."""
        total: Tensor | float = 0.0
        for index, scale, turns, flip in self.views:
            view = torch.rot90(image.flip(-1) if flip else image, turns, dims=(-2, -1))
            seen = self._probabilities(self.members[index], scale, view)  # type: ignore[arg-type]
            seen = torch.rot90(seen, -turns, dims=(-2, -1))
            total = total + (seen.flip(-1) if flip else seen)
        assert isinstance(total, Tensor)
        return (total / len(self.views)).clamp_min(_LEAST_PROBABILITY).log()

    def _probabilities(self, network: SegmentationModel, scale: float, image: Tensor) -> Tensor:
        """Return what one member sees at one scale, less the margin of the ensemble."""
        geometry = network.geometry
        view = _resize(image, scale)
        rows, columns = view.shape[-2:]
        logits = network(view[..., : geometry.input_px(rows), : geometry.input_px(columns)])
        cut = geometry.trim_px - geometry.margin_px
        inner = logits[..., cut : cut + rows - 2 * geometry.trim_px, cut : cut + columns - 2 * geometry.trim_px]
        probabilities = _resize(inner.softmax(dim=1), 1 / scale)
        rows, columns = (length - 2 * self.geometry.margin_px for length in image.shape[-2:])
        first = self.geometry.margin_px - round(geometry.trim_px / scale)
        return probabilities[..., first : first + rows, first : first + columns]


_SYMMETRIES: dict[Symmetries, list[tuple[int, bool]]] = {
    "none": [(0, False)],
    "flips": [(turns, flip) for turns in (0, 2) for flip in (False, True)],
    "all": [(turns, flip) for turns in range(4) for flip in (False, True)],
}


def _resize(image: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return image
    if scale < 1:
        return F.avg_pool2d(image, round(1 / scale))
    return F.interpolate(image, scale_factor=float(scale), mode="bilinear", align_corners=False)


def _scaled(geometry: Geometry, scale: float) -> tuple[int, int | None, int]:
    """Return stride, context and margin of a network in pixels of an image that it sees at ``scale``.

    Interpolation on the way in (scale > 1) or back (scale < 1) reaches one pixel of the coarser grid further.
    """
    if scale <= 1:
        factor = round(1 / scale)
        context = None if geometry.context_px is None else factor * (geometry.context_px + (scale < 1))
        return factor * geometry.stride_px, context, factor * geometry.trim_px
    factor = round(scale)
    stride = geometry.stride_px // math.gcd(geometry.stride_px, factor)
    context = None if geometry.context_px is None else -(-geometry.context_px // factor) + 1
    return stride, context, -(-geometry.trim_px // factor)
