"""The geometry of a network: stride, context, and the sizes of its input and output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

Tiling = Literal["exact", "blended", "objects"]


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Stride, context and margins of a network (lengths in pixels of its input).

    Attributes
    ----------
    stride_px
        Total down-sampling. Only windows whose origins differ by multiples of it give the same logits where they
        overlap.
    context_px
        How far beyond a stride-aligned region its logits depend on the input; ``None`` if on all of it (global
        pooling, instance normalization).
    margin_px
        Pixels that the network crops from each side of its input: 0 for padded convolutions.
    remainder_px
        The network takes inputs of ``size % stride_px == remainder_px`` in both directions.
    object_px
        Largest object of a network that detects objects one by one, else ``None``: a window that reaches so far beyond
        what it contributes shows every object whose centre lies there as a whole.
    """

    stride_px: int
    context_px: int | None
    margin_px: int = 0
    remainder_px: int = 0
    object_px: int | None = None

    def __post_init__(self) -> None:
        if self.stride_px < 1:
            raise ValueError(f"stride_px must be at least 1, got {self.stride_px}")
        if not 0 <= self.remainder_px < self.stride_px:
            raise ValueError(f"remainder_px must be in [0, {self.stride_px}), got {self.remainder_px}")
        if self.context_px is not None and self.object_px is not None:
            raise ValueError("a network that detects objects has no finite context")
        if self.context_px is not None and self.halo_px < self.trim_px:
            raise ValueError(f"margin_px must be at most the halo of {self.halo_px}, got {self.margin_px}")

    def with_context(self, context_px: int | None) -> Self:
        """Return the same geometry with another context."""
        return replace(self, context_px=context_px)

    @property
    def tiling(self) -> Tiling:
        """How tiles are joined: they equal one pass over the slide, are blended, or contribute objects."""
        if self.object_px is not None:
            return "objects"
        return "blended" if self.context_px is None else "exact"

    @property
    def halo_px(self) -> int:
        """The context or the largest object, rounded up to the stride; ``trim_px`` if windows are blended."""
        reach_px = self.context_px if self.object_px is None else self.object_px
        return self.trim_px if reach_px is None else round_up(reach_px, self.stride_px)

    @property
    def trim_px(self) -> int:
        """What a window of whole strides loses on each side, rounded up to the stride."""
        return round_up(self.margin_px + -self.remainder_px % self.stride_px, self.stride_px)

    def input_px(self, window_px: int) -> int:
        """Return the largest length that the network takes from a window of ``window_px``."""
        return window_px - (window_px - self.remainder_px) % self.stride_px
