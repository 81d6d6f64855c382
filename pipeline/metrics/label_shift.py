"""Labels that lie beside what they mark: measured by where the predictions of a trained network fit them best.

Such shifts are the same in all files of a program: pixels are counted from their corners or from their centres, or a
filter was not symmetric. A network cannot learn them from mirror images, and all metrics of good masks are too low.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import blocks
from pipeline.slides.labels import IGNORED

Shift = tuple[float, float]  # how far labels lie below, and to the right of, what is predicted; px

_BLOCK_PX = 256
_FURTHEST_PX = 4
_TRIED = range(-_FURTHEST_PX, _FURTHEST_PX + 1)
_FEWEST_BLOCKS = 4
_SHARE_ALIKE = 0.75
_MATTERS_PX = 0.4


def block_shifts(true: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Iterator[Shift]:
    """Yield the shift of each block of 256 px whose outlines tell it.

    They do if a shift halves the number of pixels that differ: not where a class has no outline, or the network is bad.

    Parameters
    ----------
    true, predicted : (rows, columns) uint8 array
        Class maps of the same pixels.
    """
    inner = slice(_FURTHEST_PX, -_FURTHEST_PX)
    for block in blocks(true.shape, (_BLOCK_PX, _BLOCK_PX)):
        middle, found = true[block][inner, inner], predicted[block]
        known = middle != IGNORED
        errors = np.array(
            [
                [
                    np.count_nonzero((np.roll(found, (down, right), (0, 1))[inner, inner] != middle) & known)
                    for right in _TRIED
                ]
                for down in _TRIED
            ]
        )
        if 2 * errors.min() < errors.max():
            down, right = np.unravel_index(errors.argmin(), errors.shape)
            yield _between(errors[:, right], int(down)), _between(errors[down], int(right))


def _between(errors: NDArray[np.int64], at: int) -> float:
    """Return the shift with the fewest errors, to fractions of a pixel: beside it, they rise alike on both sides."""
    if at in (0, len(errors) - 1):
        return float(_TRIED[at])
    before, fewest, after = map(int, errors[at - 1 : at + 2])
    return _TRIED[at] + (before - after) / (2 * max(before - fewest, after - fewest, 1))


def common_shift(found: Sequence[Shift]) -> Shift | None:
    """Return the median shift of blocks; None if there are fewer than 4.

    0 along an axis on which less than three quarters of the blocks are shifted to the same side.
    """
    if len(found) < _FEWEST_BLOCKS:
        return None
    down, right = (_common([shift[axis] for shift in found]) for axis in (0, 1))
    return down, right


def _common(along: list[float]) -> float:
    middle = float(np.median(along))
    alike = np.mean([shift * middle > 0 for shift in along])
    return middle if alike >= _SHARE_ALIKE else 0.0


def shift_doubt(shift: Shift | None) -> str:
    """Return a sentence about a shift that matters, 0.4 px or more along an axis; else an empty text."""
    if shift is None or max(map(abs, shift)) < _MATTERS_PX:
        return ""
    sides = (("above", "below"), ("left of", "right of"))
    places = [
        f"{abs(px):.1f} px {side[px > 0]}" for px, side in zip(shift, sides, strict=True) if abs(px) >= _MATTERS_PX
    ]
    return (
        f"labels of the held-back images lie {' and '.join(places)} what the network finds, which cannot learn this "
        "from mirror images: move the labels; or, to have masks that lie as the labels do, set augmentation.flip to "
        "false, or to left_right or up_down, the axis along which they lie right"
    )
