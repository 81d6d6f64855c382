"""What the training images are like, as far as settings follow from it: their sides, their objects, their pixel sizes.

Headers and labels go in, a few numbers come out. At most 100 pairs are looked at, spread evenly over all, and of large
ones the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stages import LabelConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.labels import open_labels, training_objects
from pipeline.slides.slide import open_slide

_MOST_PAIRS = 100
_MIDDLE_PX = 4096  # rows and columns of labels that are looked at


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A set of annotated images in numbers (lengths in pixels of the view).

    Attributes
    ----------
    side_px
        Median over the images of the shorter side.
    object_px
        Diameter of a typical object: half of all object pixels lie in wider ones. None without any object.
    pixel_sizes_um
        Pixel size (row, column) of each image that states one, µm.
    """

    side_px: int
    object_px: float | None
    pixel_sizes_um: Sequence[PixelSize] = ()


def describe_training_set(
    pairs: Sequence[TrainingPair], labels: LabelConfig, view: ImageConfig, *, memory_mb: int
) -> TrainingSet:
    """Describe training pairs as the network will see them.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        At least one.
    labels : LabelConfig
        Objects are what it says: ids, or the 4-connected components of each class but the first.
    view : ImageConfig
        How the images are read.
    memory_mb : int
        Most memory that decoding one piece of a file may take.

    Raises
    ------
    SlideError
        If an image or its labels cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(pairs) - 1, _MOST_PAIRS).round().astype(int))
    sides, sizes, areas = list[int](), list[PixelSize](), list[NDArray[np.int64]]()
    ordered = sorted(pairs, key=lambda pair: pair.name)  # the same ones in every fold
    for pair in (ordered[index] for index in chosen):
        with open_slide(pair.image, memory_mb=memory_mb, view=view) as slide:
            sides.append(min(slide.shape))
            if slide.pixel_size_um:
                sizes.append(slide.pixel_size_um)
            with open_labels(pair.labels, labels, memory_mb=memory_mb, like=slide) as annotated:
                rows, columns = (_middle(length) for length in slide.shape)
                region = annotated.read(rows, columns)[0]
        _, objects = training_objects(region, labels, source=pair.labels)
        areas.append(np.bincount(objects.ravel())[1:])
    return TrainingSet(
        side_px=round(float(np.median(sides))),
        object_px=typical_diameter(np.concatenate(areas)),
        pixel_sizes_um=sizes,
    )


def _middle(length: int) -> slice:
    start = max(0, (length - _MIDDLE_PX) // 2)
    return slice(start, min(start + _MIDDLE_PX, length))


def typical_diameter(areas: NDArray[np.int64]) -> float | None:
    """Return the diameter that half of all object pixels lie beyond: specks of a brush do not count much.

    Parameters
    ----------
    areas : (objects,) int array
        Pixels of each object; 0 for ids that are not there.

    Returns
    -------
    float or None
        Of the disk with the area of that object, 2 sqrt(area / pi); None where all areas are 0.
    """
    ordered = np.sort(areas)
    if not ordered.sum():
        return None
    middle = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    return float(2 * np.sqrt(middle / np.pi))
