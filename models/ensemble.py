"""Ensembles: the average of the probabilities of several networks, at several scales, under flips and rotations.

If tiles of all members are exact, so are those of the ensemble: its stride and context suit all members.
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
from models.base.heads import HEADS, Head, values_of
from models.base.interface import SegmentationModel
from models.layers.blocks import check_choice

Symmetries = Literal["none", "left_right", "up_down", "flips", "all"]
SCALES = (0.25, 0.5, 1, 2, 4)
_LEAST_PROBABILITY = 1e-30


class Ensemble(SegmentationModel):
    """The average of networks of the same channels and classes; it has the heads that all of them have.

    Parameters
    ----------
    members : list of mapping
        ``{"architecture": name, "options": {...}, "heads": [...]}`` of each network.
    scales : list of float
        Magnifications of the image for every member: 0.25, 0.5, 1, 2 or 4, by averaging or bilinear interpolation;
        probabilities and heads are scaled back in the same way.
    symmetries : {"none", "left_right", "up_down", "flips", "all"}
        Average over an image and one mirror image, over all 4 of them, or over all 8 symmetries of the square.
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
        shared = shared_heads(members)
        self.members = nn.ModuleList(
            models.build(
                member["architecture"],
                in_channels=in_channels,
                num_classes=num_classes - len(shared),
                heads=member.get("heads", ()),
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
        """The least common multiple of the strides, the largest context and the largest margin."""
        parts = [_scaled(member.geometry, scale) for member in self.members for scale in self.scales]  # type: ignore[arg-type]
        stride = math.lcm(*(stride for stride, _, _ in parts))
        contexts = [context for _, context, _ in parts]
        return Geometry(
            stride_px=stride,
            context_px=None if None in contexts else max(context for context in contexts if context is not None),
            margin_px=round_up(max(margin for _, _, margin in parts), stride),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes + heads, H - 2 margin, W - 2 margin): logarithms of averaged probabilities, heads."""
        total: Tensor | float = 0.0
        for index, scale, turns, flip in self.views:
            view = torch.rot90(image.flip(-1) if flip else image, turns, dims=(-2, -1))
            seen = self._values(self.members[index], scale, view)  # type: ignore[arg-type]
            seen = torch.rot90(seen, -turns, dims=(-2, -1))
            total = total + (seen.flip(-1) if flip else seen)
        assert isinstance(total, Tensor)
        values = total / len(self.views)
        probabilities, heads = values[:, : self.num_classes], values[:, self.num_classes :]
        return torch.cat([probabilities.clamp_min(_LEAST_PROBABILITY).log(), heads], dim=1)

    def _values(self, network: SegmentationModel, scale: float, image: Tensor) -> Tensor:
        """Return probabilities and heads of one member at one scale, less the margin of the ensemble."""
        geometry = network.geometry
        view = _resize(image, scale)
        rows, columns = view.shape[-2:]
        logits = network(view[..., : geometry.input_px(rows), : geometry.input_px(columns)])
        cut = geometry.trim_px - geometry.margin_px
        inner = logits[..., cut : cut + rows - 2 * geometry.trim_px, cut : cut + columns - 2 * geometry.trim_px]
        shared = [self.num_classes + network.heads.index(head) for head in self.heads]
        values = torch.cat([inner[:, : self.num_classes].softmax(dim=1), values_of(inner[:, shared])], dim=1)
        values = _resize(values, 1 / scale)
        rows, columns = (length - 2 * self.geometry.margin_px for length in image.shape[-2:])
        first = self.geometry.margin_px - round(geometry.trim_px / scale)
        return values[..., first : first + rows, first : first + columns]


def shared_heads(members: Sequence[Mapping[str, Any]]) -> list[Head]:
    """Return the heads of an ensemble: those that all its members have."""
    return [head for head in HEADS if all(head in member.get("heads", ()) for member in members)]


_SYMMETRIES: dict[Symmetries, list[tuple[int, bool]]] = {
    "none": [(0, False)],
    "left_right": [(0, False), (0, True)],
    "up_down": [(0, False), (2, True)],
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
    """Return stride, context and margin of a network at ``scale``, in pixels of the image.

    Interpolation of the image (scale > 1) or of the probabilities (scale < 1) adds a pixel of the coarser grid.
    """
    if scale <= 1:
        factor = round(1 / scale)
        context = None if geometry.context_px is None else factor * (geometry.context_px + (scale < 1))
        return factor * geometry.stride_px, context, factor * geometry.trim_px
    factor = round(scale)
    stride = geometry.stride_px // math.gcd(geometry.stride_px, factor)
    context = None if geometry.context_px is None else -(-geometry.context_px // factor) + 1
    return stride, context, -(-geometry.trim_px // factor)
