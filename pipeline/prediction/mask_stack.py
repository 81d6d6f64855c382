"""The mask of a stack: the masks of its planes, made one after the other, and numbered as one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import SQUARE_PX, Array, WritableArray, blocks
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array

Made = tuple[dict[str, Array], NDArray[np.float32] | None]


def stack_of_masks(
    planes: Iterable[Callable[[ExitStack, Path], Made]], counts: tuple[int, ...], *, scratch: Path
) -> Made:
    """Make the masks of all planes, and copy them into one; only one of them is open at a time.

    Parameters
    ----------
    planes : iterable of callables
        One for each plane, the last axis fastest. It gets what closes with the plane, and a folder of its own, and
        returns images by name, (rows, columns), and perhaps the scores of objects. Those named ``instances``, or so
        after another word, are ids from 1.
    counts : tuple of int
        How many planes there are along each axis.
    scratch : Path
        A folder for the result; it must exist as long as that.

    Returns
    -------
    images : dict of (*counts, rows, columns) arrays
        Ids are numbered on from plane to plane.
    scores : (objects,) float32 array or None
        Of the objects of all planes, by id less 1.
    """
    stacks: dict[str, WritableArray] = {}
    scores: list[NDArray[np.float32]] = []
    highest: dict[str, int] = {}
    for place, make in zip(np.ndindex(*counts), planes, strict=True):
        with tempfile.TemporaryDirectory(dir=scratch) as folder, ExitStack() as opened:
            images, of_objects = make(opened, Path(folder))
            scores += [] if of_objects is None else [of_objects]
            for name, image in images.items():
                if name not in stacks:
                    shape, chunks = (*counts, *image.shape), (*(1 for _ in counts), *SQUARE_PX)
                    stacks[name] = scratch_array(scratch / f"stack_of_{name}", shape, image.dtype, chunks=chunks)
                first = highest.get(name, 0) if name.endswith("instances") else 0
                highest[name] = max(first, _copy(image, stacks[name], place, first=first))
    return dict(stacks), np.concatenate(scores) if scores else None


def _copy(image: Array, stack: WritableArray, place: tuple[int, ...], *, first: int) -> int:
    """Copy an image to its place, ``first`` added to all but 0; return the largest number."""

    def copy(region: tuple[slice, slice]) -> int:
        numbers = np.asarray(image[region])
        if first:
            numbers = np.where(numbers > 0, numbers + numbers.dtype.type(first), 0)
        stack[(*place, *region)] = numbers
        return int(numbers.max(initial=0))

    return max(in_order(partial(copy, region) for region in blocks(image.shape)))
