"""How a network labels the images that were held back from its training, as small arrays to be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.base.interface import SegmentationModel
from pipeline.metrics.label_shift import Shift, block_shifts
from pipeline.metrics.overlap import confusion, mean_over_classes, per_class
from pipeline.prediction.forward import predict_regions
from pipeline.slides.labels import IGNORED
from pipeline.training.data.annotated_slides import Annotated

SIDE_PX = 512  # the longer side of what is drawn
_TILE_PX = 512


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """One image: the Dice of all its pixels, and every nth of them.

    Attributes
    ----------
    foreground_dice : float
        Mean Dice of all classes but the first; NaN if none has one.
    pixels : (channels, rows, columns) float32 array
        Normalized; at most 512 px on the longer side.
    truth, predicted : (rows, columns) uint8 array
        Class maps; 0 where nothing is annotated.
    shifts : list of Shift
        How far its labels lie beside what is predicted, block by block.
    """

    name: str
    foreground_dice: float
    pixels: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    shifts: list[Shift]


def label_held_back(network: SegmentationModel, images: Sequence[Annotated], *, num_classes: int) -> Iterator[HeldBack]:
    """Label images tile by tile, as slides are; memory does not grow with them.

    Parameters
    ----------
    network : SegmentationModel
        In evaluation mode, on any device.
    """
    for image in images:
        step = -(-max(image.shape) // SIDE_PX)
        shape = (-(-image.shape[0] // step), -(-image.shape[1] // step))
        pixels = np.zeros((image.image.shape[0], *shape), np.float32)
        truth, predicted = np.zeros((2, *shape), np.uint8)
        counts = np.zeros((num_classes, num_classes), np.int64)
        shifts: list[Shift] = []
        for region, labels in predict_regions(network, image.image, num_classes=num_classes, tile_px=_TILE_PX):
            true = image.classes[region.slices]
            counts += confusion(true, labels, num_classes=num_classes)
            shifts += block_shifts(true, labels)
            picked = tuple(slice(-part.start % step, None, step) for part in region.slices)
            place = tuple(slice(-(-part.start // step), -(-part.stop // step)) for part in region.slices)
            pixels[:, *place] = image.image[:, *region.slices][:, *picked]
            truth[place], predicted[place] = true[picked], labels[picked]
        dice = mean_over_classes(per_class("dice", counts)[1:])
        truth[truth == IGNORED] = 0
        yield HeldBack(
            name=image.name, foreground_dice=dice, pixels=pixels, truth=truth, predicted=predicted, shifts=shifts
        )
