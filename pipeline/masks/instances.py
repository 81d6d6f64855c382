"""Find the objects of a class map larger than memory: components, cleaned by area, optionally split by a watershed.

Every result, numbers included, is that of the whole image, whatever the blocks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import STRIP_PX, Array, LazyArray, lookup
from pipeline.base.errors import SlidemillError
from pipeline.masks.components import clean_classes, find_parts, unite_objects
from pipeline.masks.watershed import split_objects
from pipeline.settings.schema import MaskConfig


def find_objects(labels: Array, *, scratch: Path, block_px: tuple[int, int] = STRIP_PX) -> tuple[LazyArray, int]:
    """Number the 4-connected components of each class but background, in the order of their first pixels.

    The parameters are those of :func:`pipeline.masks.components.find_parts`.

    Returns
    -------
    (rows, columns) uint32 array
        Object ids, 0 = background.
    int
        Number of objects.
    """
    parts = find_parts(labels, scratch=scratch, block_px=block_px)
    numbers, objects = unite_objects(parts, parts.table["class"])
    return lookup(parts.numbers, numbers.astype(np.uint32)), len(objects)


def mask_images(
    labels: Array, probabilities: Array | None, config: MaskConfig, *, pixel_um2: float | None, scratch: Path
) -> dict[str, Array]:
    """Return the images of a mask by name: ``classes`` and, if configured, ``instances``.

    Parameters
    ----------
    labels : (rows, columns) array of uint8
        Predicted class map, 0 = background.
    probabilities : (classes, rows, columns) float16 array or None
        Needed for ``instances: watershed``.
    config : MaskConfig
        What to remove, fill and split; areas in µm².
    pixel_um2 : float or None
        Area of a pixel in µm²; without it nothing is removed or filled.
    scratch : Path
        A folder for provisional numbers; it must exist as long as the result.

    Returns
    -------
    dict of (rows, columns) arrays, uint8 and uint32
        Objects are numbered from 1 in the order of their first pixels.
    """
    if config.instances == "none" and not config.cleans:
        return {"classes": labels}
    parts = find_parts(labels, scratch=scratch)
    classes = parts.table["class"]
    if pixel_um2 is not None and config.cleans:
        smallest_px, largest_px = config.min_object_um2 / pixel_um2, config.max_hole_um2 / pixel_um2
        classes = clean_classes(parts, min_object_px=smallest_px, max_hole_px=largest_px)
    images: dict[str, Array] = {"classes": lookup(parts.numbers, classes)}
    if config.instances != "none":
        numbers, objects = unite_objects(parts, classes)
        images["instances"] = lookup(parts.numbers, numbers.astype(np.uint32))
    if config.instances == "watershed" and probabilities is not None:
        split, firsts = split_objects(images["instances"], objects, probabilities, neck=config.neck, scratch=scratch)
        images["instances"] = lookup(split, _in_order(firsts))
    return images


def pixel_area(pixel_size_um: tuple[float, float] | None, config: MaskConfig, *, slide: Path) -> float | None:
    """Return the area of a pixel in µm², None if it is not known and not needed.

    Raises
    ------
    SlidemillError
        If small objects or holes are removed by ``config``, and the ``slide`` has no pixel size (row, column).
    """
    if pixel_size_um is not None:
        return pixel_size_um[0] * pixel_size_um[1]
    if config.cleans:
        raise SlidemillError(
            f"{slide}: has no pixel size, which masks.min_object_um2 ({config.min_object_um2:g}) and "
            f"masks.max_hole_um2 ({config.max_hole_um2:g}) need; set image.fallback_pixel_size_um, or both to 0"
        )
    return None


def _in_order(firsts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return new numbers from 1 in the order of first pixels; 0 for numbers without pixels (-1)."""
    present = np.flatnonzero(firsts >= 0)
    numbers = np.zeros(len(firsts), np.uint32)
    numbers[present[np.argsort(firsts[present])]] = np.arange(1, len(present) + 1)
    return numbers
