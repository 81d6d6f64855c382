"""Check that the networks of a configuration can be built; a run does it before its first job if it trains."""

from __future__ import annotations

from pathlib import Path

import torch

import models
from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import ModelConfig
from pipeline.settings.schema import Settings, read_settings


def run(*, settings: Path = Path("config/config.yaml"), config: Settings | None = None) -> None:
    """Build every network that is to be trained, without its weights; an option or encoder that is wrong is an error.

    Parameters
    ----------
    settings : Path
        Configuration of the project.
    config : Settings, optional
        The whole configuration as JSON, in place of the file.
    """
    chosen = config or read_settings(settings)
    for name in dict.fromkeys(model for model, _ in chosen.trainings.values()):
        try:
            _build(chosen, chosen.models[name])
        except (TypeError, ValueError) as error:
            raise SlidemillError(f"models.{name}: {error}; correct its architecture or options") from error


def _build(settings: Settings, model: ModelConfig) -> None:
    with torch.device("meta"):
        models.build(
            model.architecture,
            in_channels=len(settings.image.channels),
            num_classes=len(settings.classes),
            heads=model.heads.names,
            options=model.stated_options,
        )
    known = models.options_of(model.architecture)
    if unknown := sorted(model.auto_options - known.keys()):
        raise ValueError(f"{model.architecture!r} has no option {unknown[0]!r}; available: {', '.join(known)}")
