"""Training patches: random windows of the annotated images, each image drawn as often as any other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.augmentation import IMAGE, LABELS, WEIGHTS, augmentation, seed
from pipeline.model_config import AugmentationConfig
from pipeline.tiling import Region, read_mirrored

Patch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """One annotated image in memory.

    ``image`` is (channels, rows, columns) float32 and normalized, ``classes`` (rows, columns) uint8, ``weights``
    (rows, columns) float16; ``appearance`` is what it looked like before.
    """

    name: str
    image: NDArray[np.float32]
    classes: NDArray[np.uint8]
    weights: NDArray[np.float16]
    appearance: dict[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape[1], self.image.shape[2]


class RandomPatches(Dataset[Patch]):
    """Augmented patches by number: image (channels, P, P), target (P, P) int64, weights (P, P).

    Patch i follows from ``seed`` and i alone. Images smaller than a patch are mirrored beyond their edges.
    """

    def __init__(self, images: list[Annotated], *, patch_px: int, config: AugmentationConfig, seed: int) -> None:
        super().__init__()
        self.images = images
        self.patch_px = patch_px
        self.seed = seed
        self._change = augmentation(config)

    def __getitem__(self, index: int) -> Patch:
        generator = np.random.default_rng([self.seed, index])
        seed(self._change, generator)
        patch = self._change(self._draw(generator))
        target = patch[LABELS][0].round().long()
        return patch[IMAGE], target, patch[WEIGHTS][0]

    def _draw(self, generator: np.random.Generator) -> dict[str, Tensor]:
        annotated = self.images[generator.integers(len(self.images))]
        top, left = (_place(length, self.patch_px, generator) for length in annotated.shape)
        window = Region(top=top, left=left, bottom=top + self.patch_px, right=left + self.patch_px)
        parts: dict[str, NDArray[Any]] = {
            IMAGE: annotated.image,
            LABELS: annotated.classes[None],
            WEIGHTS: annotated.weights[None],
        }
        return {name: _cut(pixels, window) for name, pixels in parts.items()}


def _place(length: int, patch_px: int, generator: np.random.Generator) -> int:
    """Draw where a patch begins; one that is longer than the image is centred on it."""
    if length <= patch_px:
        return (length - patch_px) // 2
    return int(generator.integers(length - patch_px + 1))


def _cut(pixels: NDArray[Any], window: Region) -> Tensor:
    shape = (pixels.shape[1], pixels.shape[2])
    cut = read_mirrored(lambda rows, columns: pixels[:, rows, columns], shape, window)
    return torch.from_numpy(np.ascontiguousarray(cut, dtype=np.float32))
