"""Random spatial changes of training patches, done in one resampling.

Rotation, shift, scale, crop and elastic deformation are one map from the pixels of a patch to places in the slide. So
the corners of a rotated patch show real neighbours, not mirrored pixels. Flips and quarter turns only reorder pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.settings.networks import AugmentationConfig, ChangeOfSpace

_RARE = 3.0  # largest expected elastic displacement, in standard deviations
_FLIPS: dict[bool | str, tuple[int, ...]] = {True: tuple(range(8)), "left_right": (0, 4), "up_down": (0, 6)}


def draw_map(config: AugmentationConfig, patch_px: int, generator: np.random.Generator) -> Tensor | None:
    """Draw the places in the slide that the pixels of a patch come from.

    All changes share one random number: two changes with probability 1/2 are made to the same half of the patches, and
    the other half is not resampled.

    Returns
    -------
    (2, patch_px, patch_px) float32 tensor or None
        Row and column relative to the first pixel of the patch; None if nothing changes.
    """
    chance = generator.random()

    def is_made(change: ChangeOfSpace) -> bool:
        return chance < config.chance(change)

    if not any(is_made(change) for change in ("rotate_deg", "shift_px", "scale", "crop", "elastic_px")):
        return None
    angle = math.radians(generator.uniform(-config.rotate_deg, config.rotate_deg)) if is_made("rotate_deg") else 0.0
    factors = 1 + generator.uniform(-config.scale, config.scale, 2) if is_made("scale") else np.ones(2)
    offset = generator.uniform(-config.shift_px, config.shift_px, 2) if is_made("shift_px") else np.zeros(2)
    if is_made("crop"):
        cut = generator.uniform(0, config.crop)
        factors = factors * (1 - cut)
        offset = offset + generator.uniform(-cut / 2, cut / 2, 2) * patch_px
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = torch.tensor([[cosine, -sine], [sine, cosine]] * factors, dtype=torch.float32)
    centred = torch.arange(patch_px, dtype=torch.float32) - (patch_px - 1) / 2
    grid = torch.stack(torch.meshgrid(centred, centred, indexing="ij"))
    centre = torch.tensor(offset + (patch_px - 1) / 2, dtype=torch.float32).view(2, 1, 1)
    places = torch.einsum("ij,jrc->irc", turned, grid) + centre
    return places + _elastic(config, patch_px, generator) if is_made("elastic_px") else places


def _elastic(config: AugmentationConfig, patch_px: int, generator: np.random.Generator) -> Tensor:
    """Draw a smooth displacement: normal at the nodes of a coarse grid, bicubic between them.

    References
    ----------
    Ronneberger, Fischer, Brox (2015), doi:10.1007/978-3-319-24574-4_28, section 3.1: standard deviation 10 px
    """
    nodes = math.ceil(patch_px / config.elastic_grid_px) + 2
    size_px = generator.uniform(0, config.elastic_px)
    coarse = torch.from_numpy(generator.normal(0, size_px, (1, 2, nodes, nodes)).astype(np.float32))
    length = round(nodes * config.elastic_grid_px)
    fine = F.interpolate(coarse, size=(length, length), mode="bicubic", align_corners=False)[0]
    first = (length - patch_px) // 2
    return fine[:, first : first + patch_px, first : first + patch_px]


def reach_px(config: AugmentationConfig, patch_px: int) -> int:
    """Return how far beyond a patch its pixels may come from, except for very rare elastic displacements."""
    half = patch_px / 2 * (1 + config.scale)
    angle = math.radians(min(config.rotate_deg, 45.0))
    turned = half * (math.cos(angle) + math.sin(angle))
    return math.ceil(max(turned, half) - patch_px / 2 + config.shift_px + _RARE * config.elastic_px)


def resample(pixels: NDArray[np.float32], classes: NDArray[Any], places: Tensor) -> tuple[Tensor, Tensor]:
    """Sample the pixels of a patch from a window of the slide.

    Parameters
    ----------
    pixels : (channels, rows, columns) float32 array
        Interpolated linearly.
    classes : (..., rows, columns) array
        Classes, and perhaps ids. The nearest is taken.
    places : (2, P, P) float32 tensor
        Row and column in the window.

    Returns
    -------
    pixels : (channels, P, P) float32 tensor
    classes : (..., P, P) tensor
    """
    shape = classes.shape[-2:]
    size = torch.tensor(shape, dtype=torch.float32).view(2, 1, 1)
    grid = (2 * (places + 0.5) / size - 1).flip(0).permute(1, 2, 0)[None]  # grid_sample takes x, y in [-1, 1]
    source = torch.from_numpy(pixels)[None]
    moved = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    rows, columns = (
        (axis + 0.5).floor().long().clamp(0, length - 1) for axis, length in zip(places, shape, strict=True)
    )
    return moved, torch.from_numpy(classes)[..., rows, columns]


def magnification(places: Tensor | None) -> float:
    """Return the pixels of a patch per pixel of the slide, on average; 1 if nothing changes (:func:`draw_map`)."""
    if places is None:
        return 1.0
    down, right = places[:, 1:, :-1] - places[:, :-1, :-1], places[:, :-1, 1:] - places[:, :-1, :-1]
    return 1 / float((down[0] * right[1] - down[1] * right[0]).mean().abs())


def draw_flip(config: AugmentationConfig, generator: np.random.Generator) -> int:
    """Draw the number of a flip or rotation for :func:`flip_or_rotate`."""
    if generator.random() >= config.chance("flip"):
        return 0
    numbers = _FLIPS[config.flip]
    return numbers[generator.integers(len(numbers))]


def flip_or_rotate(part: Tensor, number: int) -> Tensor:
    """Return one of the eight flips and rotations by 90 degrees of the last two axes; 0 changes nothing."""
    rotated = torch.rot90(part, number % 4, (-2, -1))
    return rotated.flip(-1) if number >= 4 else rotated
