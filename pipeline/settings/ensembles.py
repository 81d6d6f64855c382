"""The part of the configuration about networks that are averaged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline.settings.section import Name, Section


class EnsembleConfig(Section):
    """Networks whose probabilities are averaged, or one network at several scales or under flips and rotations."""

    members: list[Name] = Field(min_length=1, description="Names of entries of `models`.")
    scales: list[float] = Field(
        [1.0], min_length=1, description="Magnifications at which each member sees the slide: 0.25, 0.5, 1, 2, 4."
    )
    symmetries: Literal["none", "left_right", "up_down", "flips", "all"] = Field(
        "none",
        description="Test-time augmentation: `left_right` and `up_down` average every window and its mirror image, "
        "`flips` 4 mirror images, `all` 8, with quarter turns. Prediction takes 2, 4 or 8 times as long, for each "
        "member. Mirror images that `augmentation.flip` did not show to the members can be worse than none.",
    )

    @field_validator("members", "scales")
    @classmethod
    def _none_is_there_twice(cls, entries: list[Any]) -> list[Any]:
        if repeated := [entry for entry in entries if entries.count(entry) > 1]:
            raise ValueError(f"{repeated[0]} is there twice, and would only take time; remove one")
        return entries

    @field_validator("scales")
    @classmethod
    def _scales_are_powers_of_two(cls, scales: list[float]) -> list[float]:
        if unknown := [scale for scale in scales if scale not in {0.25, 0.5, 1, 2, 4}]:
            raise ValueError(f"a scale is 0.25, 0.5, 1, 2 or 4, got {unknown[0]}")
        return scales

    @property
    def passes(self) -> float:
        """How many pixels go through networks for each pixel of an image."""
        mirrored = {"none": 1, "left_right": 2, "up_down": 2, "flips": 4, "all": 8}[self.symmetries]
        return len(self.members) * mirrored * sum(scale**2 for scale in self.scales)
