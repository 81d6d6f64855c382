"""The settings of the conditional random field, and the kernels that they stand for.

The field prefers that pixels near each other have the same class, the more so if they look alike. Its update in
parallel is safe for the settings that are allowed here: the free energy of the field never rises.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from pipeline.settings.section import NonNegative, Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WIDEST_REACH_PX = 128  # radius times iterations: pixels that blocks compute twice
_LARGEST_CURVATURE = 2.0  # see CrfConfig._never_oscillates
_DENSITY = 8  # frequencies per pixel of the kernel, along each axis

Width = Annotated[float, Field(ge=0.5, le=1000)]


class CrfConfig(Section):
    """A fully connected conditional random field on the probabilities of the network and the normalized image.

    Each pixel is drawn to the classes of those around it, up to `radius_px`. A weight is how much the log odds of a
    class rise if all of them have it (and look the same); weights do not depend on widths and radius.
    """

    smoothness: NonNegative = Field(
        1.0, description="Weight of neighbours that are near, whatever they look like: smooth outlines."
    )
    smoothness_px: Width = Field(2.0, description="Standard deviation of that Gaussian, px.")
    appearance: NonNegative = Field(
        3.0, description="Weight of neighbours that are near and look alike: outlines on the edges of the image."
    )
    appearance_px: Width = Field(4.0, description="Standard deviation of its Gaussian of distance, px.")
    appearance_intensity: Annotated[float, Field(ge=0.001, le=1000)] = Field(
        0.1,
        description="Standard deviation of its Gaussian of intensity. 1 is the range of the slide from percentile 1 to "
        "99.8; the difference of two pixels is the Euclidean one over all channels.",
    )
    radius_px: int = Field(
        5, ge=1, le=40, description="Neighbours at most this far away count; the time grows with its square."
    )
    iterations: int = Field(
        5,
        ge=1,
        le=50,
        description="Steps of mean field. `radius_px` times `iterations` is the context, at most 128 px.",
    )

    @property
    def reach_px(self) -> int:
        """How far a pixel can have an effect."""
        return self.radius_px * self.iterations

    @property
    def pairs_per_px(self) -> float:
        """How many pairs of pixels are weighed in all iterations, per pixel."""
        return math.pi / 2 * self.radius_px**2 * self.iterations

    @property
    def kernels(self) -> list[tuple[float, NDArray[np.float64]]]:
        """Weight and spatial kernel of smoothness and of appearance."""
        both = ((self.smoothness, self.smoothness_px), (self.appearance, self.appearance_px))
        return [(weight, spatial_kernel(width, self.radius_px)) for weight, width in both]

    @model_validator(mode="after")
    def _has_an_effect_of_finite_reach(self) -> Self:
        if self.smoothness == self.appearance == 0:
            raise ValueError("smoothness and appearance are both 0, which changes nothing; leave crf out")
        if self.reach_px > _WIDEST_REACH_PX:
            raise ValueError(
                f"radius_px {self.radius_px} times iterations {self.iterations} is a context of {self.reach_px} px, at "
                f"most {_WIDEST_REACH_PX} are possible; lower one of them"
            )
        return self

    @model_validator(mode="after")
    def _never_oscillates(self) -> Self:
        """Refuse weights with which all pixels could change their minds together, back and forth.

        One step in parallel minimizes the free energy with its pairwise part made linear, so it changes the free energy
        by minus the KL divergence of the new from the old distributions, which is at least |d|^2 (Pinsker; d is their
        difference), plus at most |d|^2 / 2 times the curvature: minus the lowest eigenvalue of the matrix of pairwise
        weights. That is no more than the sum of the weights times minus the lowest value of the spectrum of each
        spatial kernel, since the Gaussian of intensities is positive definite and 1 on the diagonal (Schur).
        """
        curvature = sum(-weight * _lowest_frequency(kernel) for weight, kernel in self.kernels)
        if curvature > _LARGEST_CURVATURE:
            raise ValueError(
                f"smoothness {self.smoothness:g} and appearance {self.appearance:g} are too much for these widths and "
                f"this radius_px: pixels could change back and forth in each iteration. At most "
                f"{_LARGEST_CURVATURE / curvature:.2g} times as much is possible; lower them, or raise radius_px"
            )
        return self


def spatial_kernel(width_px: float, radius_px: int) -> NDArray[np.float64]:
    """Return a Gaussian on the disc of a radius, 0 in the centre: a pixel is no neighbour of itself.

    Returns
    -------
    (2 radius_px + 1, 2 radius_px + 1) float64 array
        Its sum is 1.
    """
    import numpy as np  # noqa: PLC0415  every run reads settings, few have a field

    steps = np.arange(-radius_px, radius_px + 1)
    squared = steps[:, None] ** 2 + steps**2
    kernel = np.exp(-squared / (2 * width_px**2)) * (squared <= radius_px**2)
    kernel[radius_px, radius_px] = 0
    normalized: NDArray[np.float64] = kernel / kernel.sum()
    return normalized


def _lowest_frequency(kernel: NDArray[np.float64]) -> float:
    """Return the lowest value of the spectrum of a symmetric kernel, sampled densely enough to be within a percent."""
    import numpy as np  # noqa: PLC0415

    radius = len(kernel) // 2
    padded = np.pad(kernel, (0, (_DENSITY - 1) * len(kernel)))
    return float(np.fft.fft2(np.roll(padded, (-radius, -radius), axis=(0, 1))).real.min())
