"""Random changes of training patches, by MONAI. Space is resampled once; labels stay integers, weights move along."""

from __future__ import annotations

import math

import numpy as np
from monai.transforms import (
    Compose,
    EnsureTyped,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Transform,
)

from pipeline.model_config import AugmentationConfig

IMAGE, LABELS, WEIGHTS = "image", "labels", "weights"
_ALL = (IMAGE, LABELS, WEIGHTS)
_GRID_PX = 32  # spacing of the random displacements between which elastic deformation is smooth


def augmentation(config: AugmentationConfig) -> Compose:
    """Return the transform of a patch: a dictionary of ``image``, ``labels``, ``weights``, (channel, row, column).

    Each change is drawn for half of the patches (flips and turns: with the same chance for each outcome), the smooth
    deformation, rotation and scaling together. Beyond the patch, pixels are mirrored.
    """
    return Compose(
        [*_turns(config), *_deformations(config), *_intensities(config), EnsureTyped(_ALL, track_meta=False)]
    )


def seed(transform: Compose, generator: np.random.Generator) -> None:
    """Make what ``transform`` draws follow from ``generator``."""
    transform.set_random_state(seed=int(generator.integers(2**32)))


def _turns(config: AugmentationConfig) -> list[Transform]:
    if not config.flip:
        return []
    return [RandFlipd(_ALL, prob=0.5, spatial_axis=0), RandRotate90d(_ALL, prob=0.75, max_k=3)]


def _deformations(config: AugmentationConfig) -> list[Transform]:
    if not (config.rotate_deg or config.scale or config.elastic_px):
        return []
    return [
        Rand2DElasticd(
            _ALL,
            prob=0.5,
            spacing=(_GRID_PX, _GRID_PX),
            magnitude_range=(0, config.elastic_px),
            rotate_range=math.radians(config.rotate_deg),
            scale_range=(config.scale, config.scale),
            mode=("bilinear", "nearest", "bilinear"),
            padding_mode="reflection",
        )
    ]


def _intensities(config: AugmentationConfig) -> list[Transform]:
    transforms: list[Transform] = []
    if config.contrast:
        transforms.append(RandScaleIntensityd(IMAGE, factors=config.contrast, prob=0.5))
    if config.brightness:
        transforms.append(RandShiftIntensityd(IMAGE, offsets=config.brightness, prob=0.5))
    if config.gamma:
        transforms.append(RandAdjustContrastd(IMAGE, prob=0.5, gamma=(1 - config.gamma, 1 + config.gamma)))
    if config.blur_px:
        sigma = (0.0, config.blur_px)
        transforms.append(RandGaussianSmoothd(IMAGE, prob=0.5, sigma_x=sigma, sigma_y=sigma))
    if config.noise:
        transforms.append(RandGaussianNoised(IMAGE, prob=0.5, std=config.noise))
    return transforms
