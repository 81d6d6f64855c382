"""Random changes of intensity of training patches, by MONAI; stains are changed in optical density."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    EnsureTyped,
    MapTransform,
    RandAdjustContrastd,
    RandCoarseDropoutd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Transform,
)
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor

from pipeline.settings.networks import AugmentationConfig
from pipeline.slides.intensity import Statistics

IMAGE = "image"
_DARKEST = 1e-3  # of white: the intensity of black, whose optical density would be infinite


def intensity_changes(config: AugmentationConfig, patch_px: int) -> Compose:
    """Return the transform of a dictionary with ``image``, (channels, rows, columns), without changes that are off.

    Seed it for every patch with ``set_random_state``.
    """
    side, gamma = max(1, round(config.erase * patch_px)), (1 - config.gamma, 1 + config.gamma)
    sigma = (0.0, config.blur_px)
    chance = config.chance
    changes: dict[str, Transform] = {
        "contrast": RandScaleIntensityd(IMAGE, factors=config.contrast, prob=chance("contrast")),
        "brightness": RandShiftIntensityd(IMAGE, offsets=config.brightness, prob=chance("brightness")),
        "gamma": RandAdjustContrastd(IMAGE, prob=chance("gamma"), gamma=gamma),
        "blur_px": RandGaussianSmoothd(IMAGE, prob=chance("blur_px"), sigma_x=sigma, sigma_y=sigma),
        "noise": RandGaussianNoised(IMAGE, prob=chance("noise"), std=config.noise),
        "channel_shuffle": RandChannelShuffled(IMAGE, prob=chance("channel_shuffle")),
        "erase": RandCoarseDropoutd(
            IMAGE, holes=1, spatial_size=1, max_spatial_size=side, fill_value=0, prob=chance("erase")
        ),
    }
    chosen = [change for name, change in changes.items() if getattr(config, name)]
    return Compose([*chosen, EnsureTyped(IMAGE, track_meta=False)])


class RandChannelShuffled(RandomizableTransform, MapTransform):  # type: ignore[misc]
    """Put the channels of an image into random order."""

    def __init__(self, keys: str, prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(None)
        changed = dict(data)
        for key in self.key_iterator(changed) if self._do_transform else ():
            changed[key] = changed[key][torch.from_numpy(self.R.permutation(len(changed[key])))]
        return changed


def jitter_stains(
    image: Tensor, statistics: tuple[Statistics, ...], white: float, *, strength: float, generator: np.random.Generator
) -> Tensor:
    """Change the amount of each stain.

    The optical density of a pixel is unmixed into haematoxylin, eosin and DAB; each is multiplied by a random number in
    1 +- ``strength`` and shifted by one in +- ``strength``; then they are mixed again.

    Parameters
    ----------
    image : (3, rows, columns) float32 tensor
        Red, green, blue, normalized with ``statistics``.
    white : float
        Intensity of white, in the units of the statistics.

    References
    ----------
    Tellez et al. (2018), doi:10.1109/TMI.2018.2820199; Ruifrok, Johnston (2001) for the colours of the stains
    """
    scale, low = (
        torch.tensor([getattr(channel, name) for channel in statistics], dtype=torch.float32).view(3, 1, 1)
        for name in ("scale", "low")
    )
    density = -torch.log10(((image * scale + low) / white).clamp(min=_DARKEST))
    factors = generator.uniform(1 - strength, 1 + strength, 3)
    shifts = generator.uniform(-strength, strength, 3)
    mixing = torch.tensor((hed_from_rgb * factors) @ rgb_from_hed, dtype=torch.float32)
    shift = torch.tensor(shifts @ rgb_from_hed, dtype=torch.float32).view(3, 1, 1)
    changed = torch.einsum("cs,crk->srk", mixing, density) + shift
    return ((white * 10**-changed).clamp(max=white) - low) / scale
