"""Training patches: randomly augmented random windows of annotated slides, balanced over slides and classes.

Patch number i depends on the seed and i only, not on the process that makes it or the patches before it.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.base.arrays import Array
from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import AugmentationConfig
from pipeline.tiling.grid import Region
from pipeline.tiling.mirror_padding import read_mirrored
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.intensity_augmentation import IMAGE, intensity_changes, jitter_stains
from pipeline.training.data.object_ids import without_slivers
from pipeline.training.data.spatial_augmentation import (
    draw_flip,
    draw_map,
    flip_or_rotate,
    magnification,
    reach_px,
    resample,
)

Patch = tuple[Tensor, Tensor, Tensor]

_OF_PLACE, _OF_PATCH = 1, 2  # seeds of two independent streams of random numbers
_BEYOND = 8  # patches extend 1/8 of their side beyond a slide, as inference sees mirrored pixels there
_PER_READ, _LANES = 8, 16  # of slides that are read from disk: patches per window, and windows that alternate


class RandomPatches(Dataset[Patch]):
    """Augmented patches by number: image (channels, P, P) float32, target (P, P) int64, maps (1 + heads, P, P) float32.

    Maps are the weight of each pixel in the loss, and the targets of heads; like the image, they are interpolated.
    For networks that detect objects, the last map is the ids of those of which at least a quarter is in the patch; the
    nearest id is taken, as of the classes.

    A patch contains a random pixel of a slide, at any place in the patch. Slides have equal probability, then pixels
    that are annotated and not glass; or, for a share ``balance`` of the patches, classes, then slides with that class,
    then pixels of it. Pixels beyond a slide are mirrored, as in inference.

    If slides are too large for memory, 8 patches are cut from the neighbourhood of one pixel, which is read once; the
    patches of 16 such places alternate, so that a batch is not from a single place.
    """

    def __init__(
        self,
        images: list[Annotated],
        *,
        patch_px: int,
        config: AugmentationConfig,
        seed: int,
        balance: float = 0.5,
    ) -> None:
        if config.stain and any(annotated.image.shape[0] != 3 for annotated in images):
            channels = next(one.image.shape[0] for one in images if one.image.shape[0] != 3)
            raise SlidemillError(f"augmentation.stain needs images of 3 channels (RGB), got {channels}; set it to 0")
        self.images = images
        self.patch_px = patch_px
        self.config = config
        self.seed = seed
        self.balance = balance
        self.classes = sorted({index for annotated in images for index in annotated.class_index.classes})
        self.is_grouped = not all(annotated.in_memory for annotated in images)
        self._windows: OrderedDict[int, tuple[Region, list[NDArray[Any]]]] = OrderedDict()

    def __getitem__(self, index: int) -> Patch:
        generator = np.random.default_rng([_OF_PATCH, self.seed, index])
        annotated, point, group = self._place(index)
        top, left = (
            _start(at, self.patch_px, length, generator) for at, length in zip(point, annotated.shape, strict=True)
        )
        places = draw_map(self.config, self.patch_px, generator)
        if places is None:
            window = Region(top=top, left=left, bottom=top + self.patch_px, right=left + self.patch_px)
            parts = self._read(annotated, window, point, group)
            image, classes, maps = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
        else:
            first, last = places.amin(dim=(1, 2)).floor().long(), places.amax(dim=(1, 2)).ceil().long() + 1
            around = [*first.tolist(), *last.tolist()]
            window = Region(top=top + around[0], left=left + around[1], bottom=top + around[2], right=left + around[3])
            pixels, labels, unmoved = self._read(annotated, window, point, group)
            smooth = len(unmoved) - annotated.has_ids
            moved, nearest = resample(
                np.concatenate([pixels, unmoved[:smooth]]),
                np.concatenate([labels, unmoved[smooth:]]),
                places - first.view(2, 1, 1),
            )
            image, classes = moved[: len(pixels)], nearest[:1]
            maps = torch.cat([moved[len(pixels) :], nearest[1:].to(moved)])
        if annotated.has_ids:
            maps = torch.cat([maps[:-1], without_slivers(maps[-1:], annotated.object_sizes, magnification(places))])
        number = draw_flip(self.config, generator)
        image, classes, maps = (flip_or_rotate(part, number).contiguous() for part in (image, classes, maps))
        return self._change_intensities(image, annotated, generator), classes[0].long(), maps.float()

    def _place(self, index: int) -> tuple[Annotated, tuple[int, int], int]:
        """Draw a slide and a pixel of it, the same for all patches of a group; return them and the group."""
        group = index
        if self.is_grouped:
            group = index // (_LANES * _PER_READ) * _LANES + index % _LANES
        generator = np.random.default_rng([_OF_PLACE, self.seed, group])
        of_class = None
        candidates = self.images
        if generator.random() < self.balance:
            of_class = self.classes[generator.integers(len(self.classes))]
            candidates = [annotated for annotated in self.images if of_class in annotated.class_index.counts]
        annotated = candidates[generator.integers(len(candidates))]
        return annotated, annotated.class_index.draw(annotated.classes, of_class, generator), group

    def _read(
        self, annotated: Annotated, window: Region, point: tuple[int, int], group: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Return image, classes and maps of a window, (channel, row, column) each."""
        if not self.is_grouped:
            return _read(annotated, window)
        if group not in self._windows:
            reach = self.patch_px + reach_px(self.config, self.patch_px)
            (top, left), (bottom, right) = ((at - reach for at in point), (at + reach for at in point))
            around = Region(top=top, left=left, bottom=bottom, right=right)
            self._windows[group] = around, list(_read(annotated, around))
            if len(self._windows) > _LANES:
                self._windows.popitem(last=False)
        around, parts = self._windows[group]
        if min(window.top - around.top, window.left - around.left) < 0 or (
            window.bottom > around.bottom or window.right > around.right
        ):
            return _read(annotated, window)
        rows, columns = (
            slice(side.start - start, side.stop - start)
            for side, start in zip(window.slices, (around.top, around.left), strict=True)
        )
        image, classes, maps = (part[:, rows, columns] for part in parts)
        return image, classes, maps

    def _change_intensities(self, image: Tensor, annotated: Annotated, generator: np.random.Generator) -> Tensor:
        if generator.random() < self.config.chance("stain"):
            image = jitter_stains(
                image, annotated.statistics, annotated.white, strength=self.config.stain, generator=generator
            )
        self._changes.set_random_state(seed=int(generator.integers(2**32)))
        changed: Tensor = self._changes({IMAGE: image})[IMAGE]
        return changed

    @cached_property
    def _changes(self) -> Compose:
        return intensity_changes(self.config, self.patch_px)


def _start(point: int, patch_px: int, length: int, generator: np.random.Generator) -> int:
    """Draw the start of a patch that contains a pixel; a patch much longer than the slide is centred on it."""
    beyond = patch_px // _BEYOND
    first, last = -beyond, length - patch_px + beyond
    if last <= first:
        return (length - patch_px) // 2
    return int(generator.integers(max(first, point - patch_px + 1), min(last, point) + 1))


def _read(annotated: Annotated, window: Region) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    def read(part: Array) -> NDArray[Any]:
        return read_mirrored(lambda rows, columns: part[:, rows, columns], annotated.shape, window)

    classes = read_mirrored(lambda rows, columns: annotated.classes[rows, columns][None], annotated.shape, window)
    return read(annotated.image), classes, read(annotated.maps).astype(np.float32)
