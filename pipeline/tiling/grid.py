"""Cut a slide into tiles: what each contributes, and the window that it is computed from.

A tile contributes its ``write`` region and is computed from its ``read`` window, which reaches a halo further on every
side. The write regions partition the slide; every window starts and ends on a multiple of the stride, so that a tile
gets the labels of one pass over the whole slide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from models.base.geometry import Geometry, round_up
from pipeline.base.arrays import blocks

_OVERLAP = 8  # windows of networks with global context overlap by one eighth of a tile


@dataclass(frozen=True, kw_only=True)
class Region:
    """Rows [top, bottom) and columns [left, right) of a slide; may reach beyond it, where pixels are mirrored."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices, for an array of the slide."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One inference window: ``read`` is what the network sees, ``write`` what it contributes."""

    read: Region
    write: Region


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An axis-aligned grid of tiles over a slide of ``shape`` (lengths in pixels).

    ``overlap_px`` is the part of the halo that is blended with the neighbours: 0 for networks with finite context.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    halo_px: int
    stride_px: int
    overlap_px: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a slide has at least one pixel, got shape {self.shape}")
        for name, length in (("halo_px", self.halo_px), ("tile rows", self.tile[0]), ("tile columns", self.tile[1])):
            if length % self.stride_px or length < 0:
                raise ValueError(f"{name} must be a multiple of the stride of {self.stride_px}, got {length}")
        if min(self.tile) < 1:
            raise ValueError(f"a tile has at least one pixel, got {self.tile}")

    @classmethod
    def plan(cls, shape: tuple[int, int], *, geometry: Geometry, tile_px: int) -> Self:
        """Cover a slide with the fewest tiles of at most ``tile_px`` a side, all of nearly the same size."""
        stride = geometry.stride_px
        largest = max(tile_px // stride, 1) * stride
        rows, columns = (round_up(-(-length // -(-length // largest)), stride) for length in shape)
        overlap_px = 0
        if geometry.context_px is None:
            overlap_px = round_up(max(rows, columns) // _OVERLAP, stride)
        return cls(
            shape=shape,
            tile=(rows, columns),
            halo_px=geometry.halo_px + overlap_px,
            stride_px=stride,
            overlap_px=overlap_px,
        )

    @classmethod
    def within(cls, shape: tuple[int, int], *, geometry: Geometry, window_px: int) -> Self:
        """Cover a slide with the tiles of least redundancy whose windows have up to ``window_px`` pixels.

        Tiles are as high as that allows, up to the height of the slide, so that they, and their memory, are the same
        for all high slides of one width.

        Raises
        ------
        ValueError
            If the smallest tile of the network has a larger window.
        """
        stride, halo = geometry.stride_px, geometry.halo_px
        grids = []
        for count in range(1, -(-shape[1] // stride) + 1):
            columns = round_up(-(-shape[1] // count), stride)
            rows = (window_px // (columns + 2 * halo) - 2 * halo) // stride * stride
            if rows >= stride:
                tile = min(rows, round_up(shape[0], stride)), columns
                grids.append(cls(shape=shape, tile=tile, halo_px=halo, stride_px=stride))
        if not grids:
            least = (stride + 2 * halo) ** 2
            raise ValueError(f"windows of {window_px} px are too small for this network, whose smallest has {least} px")
        return min(grids, key=lambda grid: grid.redundancy)

    @property
    def cut_px(self) -> int:
        """Pixels that are cut off the logits of a window on every side."""
        return self.halo_px - self.overlap_px

    @property
    def counts(self) -> tuple[int, int]:
        """Number of rows and columns of tiles."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(self.counts)

    @property
    def redundancy(self) -> float:
        """Pixels that the network computes per pixel of the slide."""
        read_px = 1
        for length, side in zip(self.shape, self.tile, strict=True):
            count = -(-length // side)
            last = length - (count - 1) * side
            read_px *= (count - 1) * side + round_up(last, self.stride_px) + count * 2 * self.halo_px
        return read_px / math.prod(self.shape)

    @property
    def window_px(self) -> int:
        """Pixels of the largest window that the network sees."""
        return math.prod(side + 2 * self.halo_px for side in self.tile)

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        for rows, columns in blocks(self.shape, self.tile):
            write = Region(top=rows.start, left=columns.start, bottom=rows.stop, right=columns.stop)
            yield Tile(read=self._read_of(write), write=write)

    def _read_of(self, write: Region) -> Region:
        rows, columns = (round_up(length, self.stride_px) for length in write.shape)
        return Region(
            top=write.top - self.halo_px,
            left=write.left - self.halo_px,
            bottom=write.top + rows + self.halo_px,
            right=write.left + columns + self.halo_px,
        )

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :func:`dataclasses.asdict` returned, also from JSON, where tuples are lists."""
        return cls(**content | {"shape": tuple(content["shape"]), "tile": tuple(content["tile"])})
