"""What a network was trained on: the content of its images, and how they and their objects looked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.project.stage_settings import network_file, training_of_start
from pipeline.settings.schema import Settings


def card_of(settings: Settings, model: str) -> ModelCard | None:
    """Return the card of a network; None if it cannot be read."""
    try:
        return read_card(card_path(Path(network_file(settings, model))))
    except SlidemillError:
        return None


def images_learned(settings: Settings, model: str) -> set[str]:
    """Return the SHA-256 of all files that a network, its members or the network that it started from learned from."""
    found: set[str] = set()
    for name in _with_members(settings, model):
        try:
            content = read_json(card_path(Path(network_file(settings, name))))
            found.update(content["provenance"]["sha256"].values())
        except (SlidemillError, KeyError, TypeError, AttributeError):  # damaged, or of another program
            continue
    return found


def _with_members(settings: Settings, model: str) -> Iterator[str]:
    yield model
    for member in settings.averages[model].members if model in settings.averages else ():
        yield from _with_members(settings, member)
    if start := training_of_start(settings, model):
        yield from _with_members(settings, start)
