"""What can be wrong with a configuration although it matches its schema, found before the first job."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import models
from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.base.files import read_json
from pipeline.settings.masks import mistake_in_masks
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
        classes = _classes_of(Path(model.checkpoint)) if model.checkpoint else None
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


def check_detectors(settings: Settings) -> None:
    """Refuse what networks that find objects one by one cannot do; of untrained networks, and of those of the user.

    Raises
    ------
    ConfigError
        One line that names the keys.
    """
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


def _architecture_of(model: ModelConfig) -> str:
    if not model.checkpoint:
        return model.architecture
    try:
        return str(read_json(Path(model.checkpoint).with_name("model.json")).get("architecture", ""))
    except SlidemillError:  # `predict` says how it is damaged
        return ""


def _classes_of(network: Path) -> list[str] | None:
    """Return the classes that the card of a network names; None for a card that is damaged: `predict` says how."""
    try:
        return read_json(network.with_name("model.json")).get("classes")
    except SlidemillError:
        return None


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
