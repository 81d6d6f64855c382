"""Find percentiles of images of any size and type, exactly, without sorting: pieces go in, values of pixels come out.

Pixels become unsigned integers in the same order. Those are counted 16 bits at a time, the highest first; each further
pass counts only what shares its higher bits with a wanted percentile. So outliers take nothing from the precision of
the rest. All counts are integers: neither the size of pieces nor the number of threads changes a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.runtime.parallel_blocks import in_order

_BITS = 16  # counted in one pass
_SCALE = 2.0**-64  # of numbers that are summed: also the sum of the largest ones is finite

Pieces = Callable[[], Iterable[Callable[[], NDArray[Any]]]]
Result = TypeVar("Result")


def percentiles_and_means(
    pieces: Pieces, percents: Sequence[float], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[float]]:
    """Return percentiles and the mean of each channel.

    Parameters
    ----------
    pieces : callable
        Each call returns the tasks that read an image, (channel, row, column) pixels each, for one pass over it: one
        for types of 8 and 16 bits, two for 32, four for 64.
    percents : sequence of float
        0 is the minimum, 100 the maximum.
    dtype : dtype
        Of the pixels: integers, floats or booleans.

    Returns
    -------
    values : (channels, percents) array of ``dtype``
        The smallest values with at least these shares of the pixels at or below: ``inverted_cdf`` of numpy.
    means : list of float

    Raises
    ------
    ValueError
        If a pixel is NaN or infinite.
    """
    bits = min(_BITS, 8 * dtype.itemsize)
    left = 8 * dtype.itemsize - bits
    counts, means = _survey(pieces, bits, left, dtype)
    keys = np.zeros((len(counts), len(percents)), np.uint64)
    ranks = np.maximum(np.array(percents) / 100 * counts[0].sum(), 1)[None].repeat(len(counts), axis=0)
    counts = counts[:, None]
    while True:
        up_to = np.cumsum(counts, axis=-1)
        is_below = up_to < ranks[..., None]
        keys = keys << np.uint64(bits) | np.count_nonzero(is_below, axis=-1).astype(np.uint64)
        ranks -= np.where(is_below, up_to, 0).max(axis=-1)
        if not left:
            return _pixels(keys, dtype), means
        left -= bits
        counts = reduce(np.add, _of_each(pieces, partial(_count_below, higher=keys, left=left)))


def _of_each(pieces: Pieces, measure: Callable[[NDArray[Any]], Result]) -> Iterator[Result]:
    """Read and measure the pieces of an image in threads; yield what was measured, in order."""
    return in_order(partial(lambda read: measure(read()), read) for read in pieces())


def _survey(pieces: Pieces, bits: int, left: int, dtype: np.dtype[Any]) -> tuple[NDArray[np.int64], list[float]]:
    """Return how many pixels have each value of the highest bits, (channels, values), and the mean of each channel."""
    counts: NDArray[np.int64] | int = 0
    sums = []
    for counted, of_rows in _of_each(pieces, partial(_count_highest, bits=bits, left=left)):
        counts = counts + counted
        sums.append(of_rows)
    assert not isinstance(counts, int)
    _refuse_infinite(counts, left, dtype)
    if left:
        total = int(counts[0].sum())
        return counts, [math.fsum(rows) / total / _SCALE for rows in np.concatenate(sums, axis=1)]
    values = _pixels(np.arange(2**bits, dtype=np.uint64), dtype).astype(np.float64)
    return counts, [float(np.average(values[one > 0], weights=one[one > 0])) for one in counts]


def _refuse_infinite(counts: NDArray[np.int64], left: int, dtype: np.dtype[Any]) -> None:
    """Refuse NaN and infinite pixels: in order, they come before and after all others."""
    if dtype.kind == "f":
        lowest, highest = (_keys(np.array([-np.inf, np.inf], dtype)) >> left).tolist()
        if unusable := int(counts[:, : lowest + 1].sum() + counts[:, highest:].sum()):
            raise ValueError(f"{unusable} pixels are NaN or infinite and cannot be normalized; replace them")


def _count_highest(pixels: NDArray[Any], *, bits: int, left: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return how many pixels have each value of the highest bits; if there are lower ones, also scaled sums of rows."""
    count = _count_bytes if bits == 8 else partial(np.bincount, minlength=2**bits)
    keys = (_keys(plane).ravel() for plane in pixels)
    counts = np.stack([count(of_plane >> left if left else of_plane) for of_plane in keys])
    with np.errstate(invalid="ignore"):
        sums = np.multiply(pixels, _SCALE, dtype=np.float64).sum(axis=2) if left else np.zeros((len(pixels), 0))
    return counts, sums


def _count_bytes(values: NDArray[Any]) -> NDArray[np.int64]:
    """Count values of uint8, in pairs: that takes half the time."""
    even = len(values) // 2 * 2
    pairs = np.bincount(values[:even].view(np.uint16), minlength=2**16).reshape(2**8, 2**8)
    counts: NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    counts[values[even:]] += 1
    return counts


def _count_below(pixels: NDArray[Any], *, higher: NDArray[np.uint64], left: int) -> NDArray[np.int64]:
    """Return how many of the pixels with these higher bits have each value of the next, (channels, keys, values)."""
    counts = np.empty((*higher.shape, 2**_BITS), np.int64)
    for plane, wanted, found in zip(pixels, higher, counts, strict=True):
        keys = _keys(plane).ravel()
        highest = keys >> (left + _BITS)
        for bits in np.unique(wanted.astype(keys.dtype)):
            chosen = keys[highest == bits]
            found[wanted == bits] = np.bincount((chosen >> left).astype(np.uint16), minlength=2**_BITS)
    return counts


def _keys(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers in the order of the pixels (IEEE 754 orders floats of one sign like integers)."""
    native = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    bits: NDArray[Any] = native.view(f"u{native.itemsize}")
    sign = bits.dtype.type(1 << 8 * native.itemsize - 1)
    if native.dtype.kind == "f":  # the larger a negative number, the smaller its integer must be: all bits change
        negative = native.view(f"i{native.itemsize}") >> 8 * native.itemsize - 1  # -1 or 0
        sign = negative.view(bits.dtype) | sign
    return bits if native.dtype.kind in "ub" else bits ^ sign


def _pixels(keys: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the pixels of keys."""
    bits = keys.astype(f"u{dtype.itemsize}")
    sign = bits.dtype.type(1 << 8 * dtype.itemsize - 1)
    if dtype.kind == "f":
        bits = np.where(bits & sign, bits ^ sign, ~bits)
    elif dtype.kind == "i":
        bits = bits ^ sign
    return bits.view(dtype.newbyteorder("="))
