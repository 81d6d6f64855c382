"""Images of planted discs, and a network that returns the discs it sees."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from models.base.detection import Detection, detection_of
from models.base.detector import DetectionModel


def planted_discs(rows: int, columns: int, *, pitch: int = 24, seed: int = 0) -> np.ndarray:
    """Ids of rows x columns discs of radius 2 to 9 at random places of their cells, (rows, columns) int32."""
    generator = np.random.default_rng(seed)
    ids = np.zeros((rows * pitch, columns * pitch), np.int32)
    y, x = np.mgrid[:pitch, :pitch]
    for number in range(rows * columns):
        radius = generator.uniform(2, 9)
        row, column = generator.uniform(radius + 1, pitch - radius - 2, 2)
        top, left = number // columns * pitch, number % columns * pitch
        cell = ids[top : top + pitch, left : left + pitch]
        cell[np.hypot(y - row, x - column) <= radius] = number + 1
    return ids


class SeesDiscs(DetectionModel):
    """Every connected bright region is an object; what a window cuts is seen as it is cut."""

    stride_px = 16
    paper = "none"

    def __init__(self, *, in_channels: int, num_classes: int, largest_px: int) -> None:
        super().__init__()
        assert (in_channels, num_classes) == (1, 2)
        self.largest_object_px = largest_px
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.name, self.chosen_options = "sees_discs", {}

    def detect(self, image: Tensor) -> list[list[Detection]]:
        return [list(found(plane[0].numpy() > 0.5)) for plane in image]

    def losses(self, image: Tensor, classes: Tensor, ids: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def outline(self, image: Tensor) -> Tensor:
        raise NotImplementedError


def sees_discs(largest_px: int = 20) -> SeesDiscs:
    """Build the network, made for discs of up to this diameter."""
    return SeesDiscs(in_channels=1, num_classes=2, largest_px=largest_px).eval()


def found(bright: np.ndarray):
    """Yield the connected bright regions of a window."""
    numbers, _ = scipy.ndimage.label(bright)
    for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(numbers), start=1):
        mask = numbers[rows, columns] == number
        yield detection_of(1, 0.5 + mask.sum() / 1000, rows.start, columns.start, mask)
