"""Pictures of the images that were held back from each training: the job of the training draws, the page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import finite, read_json, write_json
from pipeline.report.page.page_types import HeldBack, url_of
from pipeline.settings.schema import Settings

_SCORES = "held_back.json"
_LAYERS = ("image", "truth_outlines", "predicted_outlines")
_MOST_SHOWN = 8  # of each training, the worst


def write_held_back(folder: Path, scores: Mapping[str, float], pictures: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write the foreground Dice of each image, and its pictures by their names in ``paths.PICTURE``."""
    for image, layers in pictures.items():
        for layer, content in layers.items():
            path = folder / _file(image, layer)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    write_json(folder / _SCORES, finite(scores))


def read_held_back(settings: Settings, *, embedded: bool) -> list[HeldBack]:
    """Return the worst images of each training; of no training that drew none."""
    found = []
    for training in settings.trainings:
        folder = Path(paths.HELD_BACK.format(model=training))
        try:
            scores: dict[str, Any] = read_json(folder / _SCORES)
            for image in sorted(scores, key=lambda name: (scores[name] is None, scores[name] or 0, name))[:_MOST_SHOWN]:
                urls = {layer: url_of(str(folder / _file(image, layer)), embedded=embedded) for layer in _LAYERS}
                found.append(HeldBack(training=training, image=image, foreground_dice=scores[image], urls=urls))
        except (SlidemillError, OSError):  # of an older version, or deleted
            continue
    return found


def _file(image: str, layer: str) -> str:
    return f"{image}.{layer}{Path(paths.PICTURE[layer]).suffix}"
