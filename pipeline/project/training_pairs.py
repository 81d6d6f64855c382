"""Training images and their labels, paired by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.project.drop.image_files import ANNOTATION_SUFFIXES, SUFFIXES, find_images
from pipeline.project.drop.names import matched, nearest_to

_MOST_NAMES = 5  # in a message


@dataclass(frozen=True, kw_only=True)
class TrainingPair:
    """A training image and its labels; ``name`` is their common path below the two folders, without suffix."""

    name: str
    image: Path
    labels: Path


def find_pairs(images: Path, labels: Path) -> list[TrainingPair]:
    """Return the training pairs, sorted by name.

    Raises
    ------
    SlidemillError
        If there is no pair, or an image has no labels.
    """
    image_of, labels_there = find_images(images), find_images(labels, SUFFIXES + ANNOTATION_SUFFIXES)
    label_of = {name: path for name, (_, path) in matched(image_of, labels_there).items()}
    if missing := [name for name in image_of if name not in label_of]:
        names = ", ".join(missing[:_MOST_NAMES]) + (", ..." if len(missing) > _MOST_NAMES else "")
        others = f"; {len(missing)} of {len(image_of)} images have none: {names}" if len(missing) > 1 else ""
        raise SlidemillError(
            f"{image_of[missing[0]]}: no label image {missing[0]}.tif or .png in {labels}, nor outlines "
            f"(.geojson, .roi, .zip); add it, or remove the image{others}{nearest_to(missing[0], labels_there)}"
        )
    pairs = [TrainingPair(name=name, image=image, labels=label_of[name]) for name, image in image_of.items()]
    if not pairs:
        raise SlidemillError(
            f"no training images in {images} (suffixes: {', '.join(SUFFIXES)}); "
            "add annotated images, or configure a checkpoint"
        )
    return pairs
