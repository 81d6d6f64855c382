"""What can be wrong with a configuration although it matches its schema, found before the first job."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import models
from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.base.files import read_json
from pipeline.settings.masks import DISTANCE, mistake_in_masks
from pipeline.settings.networks import ModelConfig
from pipeline.settings.schema import Settings

_IMAGENET = "imagenet"


def check_files(settings: Settings) -> None:
    """Refuse a network of the user that is not there, or has other classes.

    Raises
    ------
    SlidemillError
        One line that names the key and the file.
    """
    for key, path in _files(settings):
        if not path.is_file():
            raise SlidemillError(f"{key}: there is no {path}; correct it, or put the network there")
    for name, model in settings.models.items():
        classes = _card_of(model.checkpoint).get("classes") if model.checkpoint else None
        if classes and classes != settings.classes:
            raise SlidemillError(
                f"models.{name}.checkpoint: its classes are {classes}, those of the configuration "
                f"are {settings.classes}; list the same in the same order"
            )


def check_measurements(settings: Settings, channels: Iterable[Sequence[int | str] | None]) -> None:
    """Refuse thresholds for a channel that no slide has.

    Parameters
    ----------
    channels : iterable
        Those of each slide that has its own in the sample sheet, None for another.

    Raises
    ------
    SlidemillError
        One line that names the channel, and those that there are.
    """
    kinds = dict.fromkeys(tuple(settings.image.channels if own is None else own) for own in channels)
    wrong = [settings.measurements.unknown_channel(own) for own in kinds]
    if wrong and all(wrong):
        raise SlidemillError(wrong[0])


def check_masks(settings: Settings) -> None:
    """Refuse masks that a network cannot have: it learns no distance, or it finds objects one by one.

    That holds for networks that are not trained yet, and for those of the user.

    Raises
    ------
    ConfigError
        One line that names the keys.
    """
    _check_heads(settings)
    architectures = {name: _architecture_of(model) for name, model in settings.models.items()}
    for name, architecture in architectures.items():
        if mistake := mistake_in_masks(settings.masks, architecture):
            raise ConfigError(f"models.{name}: {mistake}, or leave this model out")
        if not models.detects_objects(architecture):
            continue
        model = settings.models[name]
        if model.folds:
            raise ConfigError(f"models.{name}.folds: objects of {architecture} cannot be averaged; set null")
        if settings.training.ignored is not None and not model.checkpoint:
            raise ConfigError(
                f"models.{name}: {architecture} learns every pixel without an object as background; label all of each "
                "image and set training.ignored to null, or leave this model out"
            )
    for name, ensemble in settings.ensembles.items():
        if wrong := [member for member in ensemble.members if models.detects_objects(architectures[member])]:
            raise ConfigError(
                f"ensembles.{name}: objects of {architectures[wrong[0]]} cannot be averaged; remove {wrong[0]}"
            )


def unseen_views(settings: Settings) -> list[str]:
    """Return a line for each ensemble that averages mirror images that the training of a member does not show."""
    lines = []
    for name, ensemble in settings.ensembles.items():
        seen = {member: _flip(settings.models[member]) for member in ensemble.members}
        blind = [member for member, flip in seen.items() if flip is not True and flip != ensemble.symmetries]
        if blind and ensemble.symmetries != "none":
            lines.append(
                f"ensembles.{name}.symmetries: {ensemble.symmetries} averages mirror images that the training of "
                f"{blind[0]} does not show (augmentation.flip); the average can be worse than without them"
            )
    return lines


def _flip(model: ModelConfig) -> bool | str:
    """Return which mirror images a training shows; of a network of the user, as it is not known, all."""
    return True if model.checkpoint else bool(model.augmentation.chance("flip")) and model.augmentation.flip


def _check_heads(settings: Settings) -> None:
    if settings.masks.instances != DISTANCE:
        return
    for name, model in settings.models.items():
        if model.checkpoint:
            heads, advice = _card_of(model.checkpoint).get("heads"), "set masks.instances to auto"
        else:
            heads, advice = list(model.heads.names), "set heads: {distance: true}, or masks.instances to auto"
        if heads is not None and DISTANCE not in heads and not models.detects_objects(_architecture_of(model)):
            raise ConfigError(f"models.{name}: masks.instances {DISTANCE!r} needs the head {DISTANCE!r}; {advice}")


def _architecture_of(model: ModelConfig) -> str:
    return str(_card_of(model.checkpoint).get("architecture", "")) if model.checkpoint else model.architecture


def _card_of(network: str) -> dict[str, Any]:
    """Return the card of a network of the user; empty for one that is damaged: `predict` says how."""
    try:
        return read_json(Path(network).with_name("model.json"))
    except SlidemillError:
        return {}


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    for name, model in settings.models.items():
        if model.checkpoint:
            yield f"models.{name}.checkpoint", Path(model.checkpoint)
            yield f"models.{name}.checkpoint", Path(model.checkpoint).with_name("model.json")
        if model.pretrained and model.pretrained != _IMAGENET and model.pretrained not in settings.models:
            yield f"models.{name}.pretrained", Path(model.pretrained)


def check_networks(config: str, environment: dict[str, str]) -> None:
    """Refuse options and encoders that networks do not have, in a process of its own: planning loads no torch.

    Parameters
    ----------
    config : str
        The whole configuration, JSON.
    environment : dict of str
        Of the process.
    """
    command = ["python", "-m", "pipeline", "check", "--config", config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise SlidemillError(reason.removeprefix("error: check: ").rpartition(" [")[0] or reason)
