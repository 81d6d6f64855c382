"""Cut a slide into tiles: what each contributes, and the window that it is computed from.

A tile contributes its ``write`` region and is computed from its ``read`` window, which reaches a halo further on every
side, but not beyond the surround: the mirrored pixels around the slide. The write regions partition the slide; every
window starts and ends on a multiple of the stride. So a tile gets the labels of one pass over the slide with its
surround. Where a window ends with the surround, that pass ends too, and both see the zeros that convolutions add there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from models.base.geometry import Geometry, round_up
from pipeline.base.arrays import blocks

_OVERLAP = 8  # windows of networks with global context overlap by one eighth of a tile
_PIECE_ROWS = range(512, 127, -1)  # of a stored prediction: what later stages read at once; few, and not tiny


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

    def holds(self, row: int, column: int) -> bool:
        """Return whether a pixel is in the region."""
        return self.top <= row < self.bottom and self.left <= column < self.right


class Cut(NamedTuple):
    """Pixels to cut off on each side of the logits of a window."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def all_sides(cls, px: int) -> Self:
        """Return the same cut on every side."""
        return cls(px, px, px, px)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One inference window: ``read`` is what the network sees, ``write`` what it contributes.

    After the ``cut``, logits are those of ``part`` in whole strides, and of what is blended around it. The part is all
    of ``write``, unless the rest of it is left out: background.
    """

    read: Region
    write: Region
    part: Region
    cut: Cut


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An axis-aligned grid of tiles over a slide of ``shape`` (lengths in pixels).

    ``surround_px`` is how far windows reach beyond the slide, whose sides are rounded up to the stride first;
    ``overlap_px`` is the part of the halo that is blended with the neighbours: 0 for networks with finite context.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    halo_px: int
    surround_px: int
    stride_px: int
    overlap_px: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a slide has at least one pixel, got shape {self.shape}")
        lengths = {"halo_px": self.halo_px, "surround_px": self.surround_px}
        for name, length in (lengths | {"tile rows": self.tile[0], "tile columns": self.tile[1]}).items():
            if length % self.stride_px or length < 0:
                raise ValueError(f"{name} must be a multiple of the stride of {self.stride_px}, got {length}")
        if min(self.tile) < 1:
            raise ValueError(f"a tile has at least one pixel, got {self.tile}")
        if self.surround_px > self.halo_px:
            raise ValueError(f"surround_px must be at most the halo of {self.halo_px}, got {self.surround_px}")

    @classmethod
    def plan(cls, shape: tuple[int, int], *, geometry: Geometry, tile_px: int, mirror_px: int) -> Self:
        """Cover a slide with the fewest tiles of at most ``tile_px`` a side, all of nearly the same size.

        ``mirror_px`` is the surround that is asked for (:func:`surround_of`).
        """
        stride = geometry.stride_px
        largest = max(tile_px // stride, 1) * stride
        rows, columns = (_evenly(length, largest, stride) for length in shape)
        if rows < shape[0]:
            largest = _in_pieces(largest, stride)
            rows = _evenly(shape[0], largest, stride)
            rows = next(more for more in range(rows, largest + 1, stride) if _in_pieces(more, stride) == more)
        overlap_px = 0
        if geometry.tiling == "blended":
            overlap_px = round_up(max(rows, columns) // _OVERLAP, stride)
        return cls(
            shape=shape,
            tile=(rows, columns),
            halo_px=geometry.halo_px + overlap_px,
            surround_px=surround_of(geometry, mirror_px) + overlap_px,
            stride_px=stride,
            overlap_px=overlap_px,
        )

    @classmethod
    def within(cls, shape: tuple[int, int], *, geometry: Geometry, window_px: int, mirror_px: int) -> Self:
        """Cover a slide with the tiles of least redundancy whose windows have up to ``window_px`` pixels.

        Tiles are as high as that allows, up to the height of the slide, so that they, and their memory, are the same
        for all high slides of one width.

        Raises
        ------
        ValueError
            If the smallest tile of the network has a larger window.
        """
        stride, halo, surround = geometry.stride_px, geometry.halo_px, surround_of(geometry, mirror_px)
        height = round_up(shape[0], stride)
        grids = []
        counts = range(1, -(-shape[1] // stride) + 1)
        even = [round_up(-(-shape[1] // count), stride) for count in counts]
        for columns in dict.fromkeys([*even, *(count * stride for count in counts)]):  # even ones first
            high = window_px // _window_side(shape[1], columns, halo=halo, surround=surround)
            rows = (high - 2 * halo) // stride * stride
            for few in (2, 1):  # rows of tiles, whose windows are clipped
                side = round_up(-(-height // few), stride)
                if _window_side(shape[0], side, halo=halo, surround=surround) <= high:
                    rows = max(rows, side)
            if rows >= stride:
                tile = min(rows, height), columns
                grids.append(cls(shape=shape, tile=tile, halo_px=halo, surround_px=surround, stride_px=stride))
        if not grids:
            least = (stride + 2 * halo) ** 2
            raise ValueError(f"windows of {window_px} px are too small for this network, whose smallest has {least} px")
        best = min(grids, key=lambda grid: grid.redundancy)
        return best if best.counts[0] == 1 else replace(best, tile=(_in_pieces(best.tile[0], stride), best.tile[1]))

    @property
    def piece_rows(self) -> int:
        """Rows of the pieces in which the tiles of a prediction are stored; each but the last has whole pieces."""
        largest = min(self.tile[0], _PIECE_ROWS.start)
        piece = next(piece for piece in range(largest, 0, -1) if self.tile[0] % piece == 0)
        return largest if self.counts[0] == 1 and piece not in _PIECE_ROWS else piece

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
        read_px = math.prod(self._read_px(length, side) for length, side in zip(self.shape, self.tile, strict=True))
        return read_px / math.prod(self.shape)

    def _read_px(self, length: int, side: int) -> int:
        """Return the sum of the sides of all windows along an axis."""
        count, whole = -(-length // side), round_up(length, self.stride_px)
        beyond = self.halo_px - self.surround_px  # what a window at the border reads less than others
        last = whole - (count - 1) * side
        clipped = sum(beyond - inside for inside in range(0, min(beyond, count * side), side))
        clipped += beyond + sum(beyond - inside for inside in range(last, min(beyond, whole), side))
        return whole + 2 * count * self.halo_px - clipped

    @property
    def window_px(self) -> int:
        """Pixels of the largest window that the network sees, or a few more."""
        return math.prod(
            _window_side(length, side, halo=self.halo_px, surround=self.surround_px)
            for length, side in zip(self.shape, self.tile, strict=True)
        )

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        for rows, columns in blocks(self.shape, self.tile):
            write = Region(top=rows.start, left=columns.start, bottom=rows.stop, right=columns.stop)
            yield self.narrowed(write, write)

    def narrowed(self, write: Region, part: Region) -> Tile:
        """Return the tile of a ``write`` region of which only a ``part`` is computed.

        The part begins whole strides from the beginning of the region, and ends likewise, or where the region does.
        """
        rows, columns = (round_up(length, self.stride_px) for length in part.shape)
        bottom, right = part.top + rows, part.left + columns
        ends = [round_up(length, self.stride_px) + self.surround_px for length in self.shape]
        read = Region(
            top=max(part.top - self.halo_px, -self.surround_px),
            left=max(part.left - self.halo_px, -self.surround_px),
            bottom=min(bottom + self.halo_px, ends[0]),
            right=min(right + self.halo_px, ends[1]),
        )
        kept = self.overlap_px
        cut = Cut(
            top=part.top - read.top - kept,
            left=part.left - read.left - kept,
            bottom=read.bottom - bottom - kept,
            right=read.right - right - kept,
        )
        return Tile(read=read, write=write, part=part, cut=cut)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :func:`dataclasses.asdict` returned, also from JSON, where tuples are lists."""
        return cls(**content | {"shape": tuple(content["shape"]), "tile": tuple(content["tile"])})


def surround_of(geometry: Geometry, mirror_px: int) -> int:
    """Return the surround of a slide for a network: ``mirror_px`` in whole strides, at most the halo.

    Networks that crop their input, and those with global context, get their whole halo.
    """
    if geometry.tiling == "blended" or geometry.trim_px:
        return geometry.halo_px
    return min(round_up(mirror_px, geometry.stride_px), geometry.halo_px)


def _window_side(length: int, side: int, *, halo: int, surround: int) -> int:
    """Return the largest side of a window along an axis of ``length`` px: at its ends, the surround is enough."""
    tiles = -(-length // side)
    return side + (2 * surround if tiles == 1 else surround + halo if tiles == 2 else 2 * halo)


def _evenly(length: int, largest: int, stride: int) -> int:
    """Return the side of the fewest tiles, all of nearly the same size."""
    return round_up(-(-length // -(-length // largest)), stride)


def _in_pieces(rows: int, stride: int) -> int:
    """Return the largest multiple of the stride, up to ``rows``, that is small or consists of equal pieces."""
    for fewer in range(rows, 0, -stride):
        if fewer <= _PIECE_ROWS.start or any(fewer % piece == 0 for piece in _PIECE_ROWS):
            return fewer
    return rows
