"""Measurements of the training images from which ``auto`` settings follow: image size, object size, pixel size.

Headers and labels go in, a few numbers come out. At most 100 pairs are measured, spread evenly over all, and only the
middle of large ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import SlidemillError
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.labels import IGNORED, open_labels, training_objects
from pipeline.slides.slide import open_slide

_MOST_PAIRS = 100
_LEAST_SIDE_PX = 16  # of an image at another pixel size than its own
_MIDDLE_PX = 4096  # rows and columns of labels that are measured


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Measurements of a set of annotated images (lengths in pixels as the network sees them).

    Attributes
    ----------
    side_px
        Median of the shorter sides of the images.
    object_px
        Typical diameter: half of all object pixels belong to wider objects. None without objects.
    pixel_sizes_um
        Pixel size (row, column) in µm of each image that has one.
    objects
        Of the annotated objects, if there are any: ``small_area_px``, above which 95 % of them are; ``spread``, the
        standard deviation of the logarithm (base 2) of their areas; ``most_per_mpx``, in the image with most of them.
    """

    side_px: int
    object_px: float | None
    pixel_sizes_um: Sequence[PixelSize] = ()
    objects: Mapping[str, float] = field(default_factory=dict)


def describe_training_set(
    pairs: Sequence[TrainingPair], labels: LabelConfig, view: ImageConfig, *, memory_mb: int
) -> TrainingSet:
    """Measure training pairs.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        At least one.
    labels : LabelConfig
        Objects are its ids, or the 4-connected components of each class but the first.
    view : ImageConfig
        How the images are read.
    memory_mb : int
        Memory limit of decoding one piece of a file.

    Raises
    ------
    SlideError
        If an image or its labels cannot be read.
    SlidemillError
        If hardly a pixel is left of an image at ``view.pixel_size_um``.
    """
    chosen = np.unique(np.linspace(0, len(pairs) - 1, _MOST_PAIRS).round().astype(int))
    sides, sizes, areas = list[int](), list[PixelSize](), list[NDArray[np.int64]]()
    per_mpx = list[float]()
    ordered = sorted(pairs, key=lambda pair: pair.name)  # the same in every fold
    for pair in (ordered[index] for index in chosen):
        with open_slide(pair.image, memory_mb=memory_mb, view=view) as slide:
            sides.append(min(slide.shape))
            if slide.pixel_size_um:
                sizes.append(slide.pixel_size_um)
            with open_labels(pair.labels, labels, memory_mb=memory_mb, like=slide) as annotated:
                rows, columns = (_middle(length) for length in slide.shape)
                region = annotated.read(rows, columns)[0]
        classes, objects = training_objects(region, labels, source=pair.labels)
        areas.append(np.bincount(objects.ravel())[1:])
        annotated_px = max(1, int(np.count_nonzero(classes != IGNORED)))
        per_mpx.append(1e6 * int(np.count_nonzero(areas[-1])) / annotated_px)
    if view.pixel_size_um and min(sides) < _LEAST_SIDE_PX:
        raise SlidemillError(
            f"image.pixel_size_um: at {view.pixel_size_um:g} µm a training image is {min(sides)} px wide or high, "
            f"at least {_LEAST_SIDE_PX} are needed; choose a finer one, or state the pixel size of the images"
        )
    return TrainingSet(
        side_px=round(float(np.median(sides))),
        object_px=typical_diameter(np.concatenate(areas)),
        pixel_sizes_um=sizes,
        objects=_describe_objects(np.concatenate(areas), max(per_mpx)),
    )


def _describe_objects(areas: NDArray[np.int64], most_per_mpx: float) -> dict[str, float]:
    found = areas[areas > 0]
    if not len(found):
        return {}
    small, spread = float(np.quantile(found, 0.05)), float(np.log2(found).std())
    return {"small_area_px": small, "spread": spread, "most_per_mpx": most_per_mpx}


def _middle(length: int) -> slice:
    start = max(0, (length - _MIDDLE_PX) // 2)
    return slice(start, min(start + _MIDDLE_PX, length))


def typical_diameter(areas: NDArray[np.int64]) -> float | None:
    """Return the typical diameter, weighted by area so that specks hardly count.

    Parameters
    ----------
    areas : (objects,) int array
        Pixels of each object; 0 for missing ids.

    Returns
    -------
    float or None
        Diameter 2 sqrt(area / pi), where half of all pixels belong to larger areas; None if all areas are 0.
    """
    ordered = np.sort(areas)
    if not ordered.sum():
        return None
    middle = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    return float(2 * np.sqrt(middle / np.pi))
