"""Find the objects of a class map larger than memory: components, cleaned by area, or parts that touch.

Every result, numbers included, is that of the whole image, whatever the blocks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray, lookup
from pipeline.base.errors import SlidemillError
from pipeline.masks.basins import Basins
from pipeline.masks.components import clean_classes, find_parts, unite_objects
from pipeline.masks.landscapes import part_by_distance, part_plane
from pipeline.masks.random_field import refine_classes
from pipeline.masks.watershed import split_objects
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import MaskConfig

_SMALL_SHARE = 0.5  # of the area of a small annotated object


def mask_images(
    labels: Array,
    probabilities: Array | None,
    config: MaskConfig,
    *,
    distance: Array | None = None,
    image: Array | None = None,
    pixel_um2: float | None,
    scratch: Path,
) -> dict[str, Array]:
    """Return the images of a mask by name: ``classes`` and, if configured, ``instances``.

    Parameters
    ----------
    labels : (rows, columns) array of uint8
        Predicted class map, 0 = background.
    probabilities : (classes, rows, columns) float16 array or None
        Needed for ``instances: watershed`` and ``partition``, and for ``crf``.
    config : MaskConfig
        What to remove and fill, and how to tell objects apart; nothing is ``auto`` (:func:`with_areas`).
    distance : (rows, columns) uint8 array or None
        Needed for ``instances: distance``.
    image : (channels, rows, columns) float array or None
        Normalized; needed for ``crf``.
    pixel_um2 : float or None
        Area of a pixel in µm²; without it, areas in µm² do not count.
    scratch : Path
        A folder for provisional numbers; it must exist as long as the result.

    Returns
    -------
    dict of (rows, columns) arrays, uint8 and uint32
        Objects are numbered from 1 in the order of their first pixels.
    """
    if isinstance(config.crf, CrfConfig) and probabilities is not None and image is not None:
        labels = refine_classes(probabilities, image, config.crf, scratch=scratch)
    images: dict[str, Array] = {"classes": labels}
    joined = config.instances in ("components", "watershed")
    if config.cleans or joined:
        parts = find_parts(labels, scratch=scratch)
        classes = parts.table["class"]
        if config.cleans:
            smallest_px, largest_px = areas_px(config, pixel_um2)
            classes = clean_classes(parts, min_object_px=smallest_px, max_hole_px=largest_px)
            images["classes"] = lookup(parts.numbers, classes)
        if joined:
            numbers, objects = unite_objects(parts, classes)
            images["instances"] = lookup(parts.numbers, numbers.astype(np.uint32))
        if config.instances == "watershed" and probabilities is not None:
            split, firsts = split_objects(
                images["instances"], objects, probabilities, neck=config.number("neck"), scratch=scratch
            )
            images["instances"] = lookup(split, _in_order(firsts))
    if config.instances == "distance" and distance is not None:
        seed, neck = config.number("seed"), config.number("neck")
        images["instances"] = _of_basins(
            *part_by_distance(distance, images["classes"], seed=seed, neck=neck, scratch=scratch)
        )
    if config.instances == "partition" and probabilities is not None:
        images["instances"] = _of_basins(
            *part_plane(_first(probabilities), images["classes"], border=config.number("border"), scratch=scratch)
        )
    return images


def _first(probabilities: Array) -> LazyArray:
    """Return the probability of the first class."""
    return LazyArray(probabilities.shape[1:], probabilities.dtype, lambda *key: probabilities[(0, *key)])


def _of_basins(basins: Basins, parts: NDArray[np.int64]) -> LazyArray:
    """Return the image of the parts of basins, numbered in the order of their first pixels; 0 stays."""
    firsts = np.full(len(parts), -1)
    firsts[parts] = np.iinfo(np.int64).max
    np.minimum.at(firsts, parts, basins.table["first"])
    firsts[0] = -1
    return lookup(basins.numbers, _in_order(firsts)[parts])


def areas_px(config: MaskConfig, pixel_um2: float | None) -> tuple[float, float]:
    """Return in px below which area an object is removed, and up to which a hole is filled."""
    assert config.min_object_px != "auto"
    per_um2 = 1 / pixel_um2 if pixel_um2 else 0.0
    smallest_px = max(config.min_object_px or 0.0, config.min_object_um2 * per_um2)
    return smallest_px, max(config.max_hole_px, config.max_hole_um2 * per_um2)


def pixel_area(pixel_size_um: tuple[float, float] | None, config: MaskConfig, *, slide: Path) -> float | None:
    """Return the area of a pixel in µm², None if it is not known and not needed.

    Raises
    ------
    SlidemillError
        If small objects or holes are removed by ``config``, and the ``slide`` has no pixel size (row, column).
    """
    if pixel_size_um is not None:
        return pixel_size_um[0] * pixel_size_um[1]
    if config.needs_pixel_size:
        raise SlidemillError(
            f"{slide}: has no pixel size, which masks.min_object_um2 ({config.min_object_um2:g}) and "
            f"masks.max_hole_um2 ({config.max_hole_um2:g}) need; set image.fallback_pixel_size_um, or both to 0 and "
            "min_object_px, max_hole_px instead"
        )
    return None


def with_areas(config: MaskConfig, small_area_px: float | None) -> MaskConfig:
    """Return the settings with a number in place of ``min_object_px: auto``.

    Parameters
    ----------
    small_area_px : float or None
        Area above which 95 % of the annotated objects are.

    Raises
    ------
    SlidemillError
        If it is needed and not known.
    """
    if config.min_object_px != "auto":
        return config
    if small_area_px is None:
        raise SlidemillError(
            "masks.min_object_px: 'auto' needs a network whose model.json describes the annotated objects; "
            "state a number"
        )
    return config.model_copy(update={"min_object_px": small_area_px * _SMALL_SHARE})


def _in_order(firsts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return new numbers from 1 in the order of first pixels; 0 for numbers without pixels (-1)."""
    present = np.flatnonzero(firsts >= 0)
    numbers = np.zeros(len(firsts), np.uint32)
    numbers[present[np.argsort(firsts[present])]] = np.arange(1, len(present) + 1)
    return numbers
