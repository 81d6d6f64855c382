"""Read regions of a TIFF from its tiles or strips: each is decoded once for all windows that share it.

Windows overlap by their halos, so a tile along their edges is kept until all of them had it; those inside are not.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.base.arrays import Array
from pipeline.slides.formats.compression.stored import stored_bytes
from pipeline.slides.formats.frames import array_of_planes

_KEPT_BYTES = 16 * 10**6  # a row of tiles of 512 px across a slide of 10,000 px in colour; it is part of no budget
_SHARED_PX = 256  # windows of most networks overlap by less

Pixels = NDArray[Any]
Span = tuple[int, int, slice]  # number of a tile along an axis, where it begins, what is wanted of the axis


def array_of_tiles(level: tifffile.TiffPageSeries, stack: ExitStack) -> Array:
    """Return the pixels of one resolution, with the axes of the series; several threads may read them."""
    if not _has_one_plane_per_page(level):  # planes in one piece of data, separate colours, tiles of several planes
        return zarr.open_array(stack.enter_context(level.aszarr(level=0, maxworkers=2)), mode="r")
    page: Any = level.keyframe
    tiles = _Tiles(level, stack.enter_context(stored_bytes(page)))
    in_strips = page.chunks[1] >= page.shape[1]
    return array_of_planes(
        tuple(level.shape), np.dtype(level.dtype), tiles.read, plane_axes=page.ndim, in_strips=in_strips
    )


def _has_one_plane_per_page(level: tifffile.TiffPageSeries) -> bool:
    page: Any = level.keyframe
    leading, plane = level.shape[: -page.ndim], tuple(level.shape[-page.ndim :])
    return (
        page.axes in ("YX", "YXS")
        and plane == page.shape
        and len(page.chunks) == page.ndim
        and len(level.pages) == math.prod(leading)
        and level.dataoffset is None
        and level.transform is None
    )


class _Tiles:
    """The tiles of all planes of a level."""

    def __init__(self, level: tifffile.TiffPageSeries, files: tifffile.FileCache) -> None:
        page: Any = level.keyframe
        self._level, self._page, self._decode, self._files = level, page, page.decode, files
        self._tile_bytes = math.prod(page.chunks) * np.dtype(level.dtype).itemsize
        self._kept = _Kept(max(1, _KEPT_BYTES // self._tile_bytes))

    def read(self, index: tuple[int, ...], key: tuple[Any, ...]) -> Pixels:
        """Return a region of the plane at an index: integers or slices of rows, columns and perhaps samples."""
        shape, side = self._page.shape, self._page.chunks
        rows, columns = (part if isinstance(part, slice) else slice(part, part + 1) for part in key[:2])
        number = int(np.ravel_multi_index(index, self._level.shape[: len(index)])) if index else 0
        pixels = np.empty((rows.stop - rows.start, columns.stop - columns.start, *shape[2:]), self._level.dtype)
        for (down, top, of_rows), (across, left, of_columns) in product(
            list(_touched(rows, side[0])), list(_touched(columns, side[1]))
        ):
            windows = _windows_at(rows, top, side[0], shape[0]) * _windows_at(columns, left, side[1], shape[1])
            is_last = not (
                _is_needed_after(rows, top, side[0], shape[0]) or _is_needed_after(columns, left, side[1], shape[1])
            )
            tile = self._kept.get((number, down * self._page.chunked[1] + across), windows, self._read_tile, is_last)
            into = _shifted(of_rows, rows.start), _shifted(of_columns, columns.start)
            pixels[into] = tile[_shifted(of_rows, top), _shifted(of_columns, left)]
        return pixels[tuple(slice(None) if isinstance(part, slice) else 0 for part in key[:2]) + key[2:]]

    def _read_tile(self, number: int, index: int) -> Pixels:
        """Decode a tile, (rows, columns) or (rows, columns, samples); what is beyond the image may be missing."""
        with self._files.lock:
            page: Any = self._level[number]
        start, size = page.dataoffsets[index], page.databytecounts[index]
        if not start or not size:
            return np.full(self._page.chunks, self._page.nodata, self._level.dtype)
        tables = {"jpegtables": page.jpegtables, "jpegheader": self._page.jpegheader}
        data = self._files.read(page.parent.filehandle, start, size)
        tile: Pixels = self._decode(
            data, index, **{name: table for name, table in tables.items() if table is not None}
        )[0]
        return tile[0] if self._page.ndim > 2 else tile[0, ..., 0]


class _Kept:
    """The tiles that were read last; one thread decodes a tile, and others that need it wait.

    Parameters
    ----------
    most : int
        Tiles that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._tiles: OrderedDict[tuple[int, int], tuple[Future[Pixels], float]] = OrderedDict()

    def get(self, place: tuple[int, int], windows: float, read: Callable[[int, int], Pixels], is_last: bool) -> Pixels:
        """Return the tile at a place (plane and number), by ``read`` if it is not kept.

        It is kept until it was needed by as many ``windows``, or until others need the memory. ``is_last``: windows
        further right or down do not need it, so that it makes room first: those before had it, if they do need it.
        """
        with self._lock:
            known, left = self._tiles.pop(place, (None, windows))
            found = known or Future()
            if left > 1:
                self._tiles[place] = found, left - 1
                if is_last:
                    self._tiles.move_to_end(place, last=False)
            if len(self._tiles) > self._most:
                self._tiles.popitem(last=False)
        if known is None:
            try:
                found.set_result(read(*place))
            except BaseException as error:  # else the others would wait for ever
                with self._lock:
                    self._tiles.pop(place, None)
                found.set_exception(error)
        return found.result()


def _touched(wanted: slice, side: int) -> Iterator[Span]:
    """Yield the tiles along an axis that a range touches: number, first pixel, and the wanted pixels in it."""
    for number in range(wanted.start // side, -(-wanted.stop // side)):
        first = number * side
        yield number, first, slice(max(wanted.start, first), min(wanted.stop, first + side))


def _windows_at(wanted: slice, first: int, side: int, length: int) -> float:
    """Return how many windows, side by side along an axis, need a tile: the wanted one, and perhaps its neighbour.

    Infinitely many if it reaches beyond both ends: nobody knows how small the windows are.
    """
    start = int(wanted.start)
    is_needed_before = start > 0 and first < start + _SHARED_PX
    is_needed_after = _is_needed_after(wanted, first, side, length)
    return math.inf if is_needed_before and is_needed_after else 1 + is_needed_before + is_needed_after


def _is_needed_after(wanted: slice, first: int, side: int, length: int) -> bool:
    """Return whether the window after the wanted one needs a tile."""
    return bool(wanted.stop < length and wanted.stop - _SHARED_PX < first + side)


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)
