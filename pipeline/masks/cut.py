"""Cut a mask along an area: what lies outside is background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import STRIP_PX, Array, LazyArray, lookup
from pipeline.masks.components import find_parts, unite_objects


def cut_images(
    images: dict[str, Array], inside: Array, *, scratch: Path, block_px: tuple[int, int] = STRIP_PX
) -> dict[str, Array]:
    """Return the images of a mask with 0 outside an area.

    An object across the border of the area is cut; pieces of it that no longer touch are objects of their own.

    Parameters
    ----------
    images : dict of (rows, columns) arrays
        ``classes``, uint8, and perhaps ``instances``, uint32: ids of 4-connected objects.
    inside : (1, rows, columns) array
        0 outside.
    scratch : Path
        A folder for provisional numbers; it must exist as long as the result.
    block_px : (rows, columns)
        Largest block.

    Returns
    -------
    dict of (rows, columns) arrays, uint8 and uint32
        Objects are numbered from 1 in the order of their first pixels.
    """
    left: dict[str, Array] = {name: cut(image, inside, 0) for name, image in images.items()}
    if "instances" in left:
        folder = scratch / "cut"
        folder.mkdir()
        pieces = find_parts(left["instances"], scratch=folder, block_px=block_px)
        numbers, _ = unite_objects(pieces, pieces.table["class"])
        left["instances"] = lookup(pieces.numbers, numbers.astype(np.uint32))
    return left


def cut(image: Array, inside: Array, outside: int) -> LazyArray:
    """Return a (rows, columns) image with the value ``outside`` where a (1, rows, columns) array is 0."""

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        pixels: NDArray[Any] = np.where(inside[0, rows, columns] > 0, image[rows, columns], image.dtype.type(outside))
        return pixels

    return LazyArray((image.shape[0], image.shape[1]), image.dtype, read)
