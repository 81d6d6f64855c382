"""Label images: from what annotators save to class maps and objects. Integers in, integers out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import skimage.measure
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from pipeline.errors import SlideError
from pipeline.slides import Slide, on_grid_of, open_slide, read_plane
from pipeline.stage_config import LabelConfig

IGNORED = 255  # in class maps: not annotated, so neither learned nor scored


@contextmanager
def open_labels(
    path: Path,
    config: LabelConfig,  # noqa: ARG001
    *,
    memory_mb: int,
    like: Slide,
) -> Iterator[Slide]:
    """Open a label image on the grid of its image: one channel, read by region.

    Raises
    ------
    SlideError
        If it cannot be read, or does not suit the image.
    """
    with open_slide(path, memory_mb=memory_mb) as labels:
        if labels.channels != 1:
            raise SlideError(
                f"{path}: a label image has 1 channel, this file has {labels.channels}; save it as a grey image"
            )
        yield on_grid_of(like, labels)


def class_map(labels: NDArray[Any], config: LabelConfig, *, source: Path) -> NDArray[np.uint8]:
    """Return the class of every pixel of a label image.

    Parameters
    ----------
    labels : (rows, columns) array
        As saved: object ids for ``kind: instances``, one value per class for ``kind: classes``.
    config : LabelConfig
        What the values mean.
    source : Path
        Named in the error.

    Returns
    -------
    (rows, columns) uint8 array
        Values in [0, number of classes); objects are class 1.

    Raises
    ------
    SlideError
        If the pixels are not integers, an id is negative, or a value belongs to no class.
    """
    if labels.dtype.kind not in "uib":
        raise SlideError(
            f"{source}: labels are whole numbers, this file has {labels.dtype} pixels; save it as 8 or 16 bit"
        )
    if config.kind == "instances":
        if labels.min() < 0:
            raise SlideError(f"{source}: object ids are at least 0 (background), found {labels.min()}; save it again")
        return (labels > 0).astype(np.uint8)
    values = config.values or list(range(len(config.classes)))
    classes = np.full(labels.shape, 255, dtype=np.uint8)
    for index, value in enumerate(values):
        classes[labels == value] = index
    if (unknown := labels[classes == 255]).size:
        meaning = ", ".join(f"{value} = {name}" for value, name in zip(values, config.classes, strict=True))
        raise SlideError(
            f"{source}: {unknown.size} pixels of value {unknown[0]} belong to no class ({meaning}); "
            "mend the file or training.values"
        )
    return classes


def read_training_labels(
    path: Path, config: LabelConfig, *, memory_mb: int, like: Slide | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Read a label image for training on the grid of its image: its classes, and its objects for the weight map.

    Objects are the ids of ``kind: instances``, parted by a ridge of background where they touch, or the 4-connected
    components of each class but background.

    Returns
    -------
    classes : (rows, columns) uint8 array
    objects : (rows, columns) int32 array, 0 = background
    """
    labels = read_plane(path, memory_mb=memory_mb, like=like)
    classes = class_map(labels, config, source=path)
    if config.kind == "classes":
        return classes, skimage.measure.label(classes, background=0, connectivity=1).astype(np.int32)
    objects = part_touching(relabel_sequential(labels)[0].astype(np.int32))
    return (objects > 0).astype(np.uint8), objects


def training_classes(labels: NDArray[Any], config: LabelConfig, *, source: Path) -> NDArray[np.uint8]:
    """Return the class map that is learned from a region of labels: as :func:`class_map`, touching objects parted.

    Regions that overlap by one pixel to the right and below agree with the whole.
    """
    classes = class_map(labels, config, source=source)
    if config.kind == "instances":
        classes[touching(np.where(classes == 1, labels, 0))] = 0
    return classes


def part_touching(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Put a one-pixel ridge of background between touching objects.

    A pixel becomes background if the pixel to its right or below belongs to another object, so that afterwards no two
    objects are 4-connected, and each has lost at most one pixel along the contact.

    Parameters
    ----------
    objects : (rows, columns) int32 array
        Ids, 0 = background.

    Returns
    -------
    (rows, columns) int32 array
    """
    return np.where(touching(objects), 0, objects).astype(np.int32)


def touching(objects: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of objects whose neighbour to the right or below belongs to another object."""
    ridge = np.zeros(objects.shape, dtype=bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1, :], np.s_[1:, :])):
        ridge[here] |= (objects[here] != objects[there]) & (objects[here] > 0) & (objects[there] > 0)
    return ridge
