"""Turn what annotators save, label images or outlines, into class maps and objects. Integers in, integers out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import skimage.measure
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from pipeline.base.errors import SlideError
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.outlines import is_annotation
from pipeline.slides.rasterize import draw
from pipeline.slides.slide import Slide, open_plane

IGNORED = 255  # in class maps: not annotated, neither learned nor scored


@contextmanager
def open_labels(path: Path, config: LabelConfig, *, memory_mb: int, like: Slide) -> Iterator[Slide]:
    """Open a label image, or draw an annotation file, on the grid of its image: one channel, read by region.

    Raises
    ------
    SlideError
        If it cannot be read, or does not fit the image.
    """
    if is_annotation(path):
        yield draw(path, config, memory_mb=memory_mb, like=like)
        return
    with open_plane(path, memory_mb=memory_mb, like=like) as labels:
        yield labels


def class_map(labels: NDArray[Any], config: LabelConfig, *, source: Path) -> NDArray[np.uint8]:
    """Return the class of every pixel of a label image.

    Parameters
    ----------
    labels : (rows, columns) array
        As saved: object ids for ``kind: instances``, one value per class for ``kind: classes``.
    config : LabelConfig
        What the values mean.
    source : Path
        File to name in an error.

    Returns
    -------
    (rows, columns) uint8 array
        Values in [0, number of classes); objects are class 1. :data:`IGNORED` where the label is ``config.ignored``.

    Raises
    ------
    SlideError
        If the pixels are not integers, an id is negative, or a value belongs to no class.
    """
    if labels.dtype.kind not in "uib":
        raise SlideError(
            f"{source}: labels must be integers, this file has {labels.dtype} pixels; save it as 8 or 16 bit"
        )
    ignored = labels == config.ignored if config.ignored is not None else np.zeros(labels.shape, dtype=bool)
    if config.kind == "instances":
        if (labels[~ignored] < 0).any():
            raise SlideError(f"{source}: object id {labels.min()} is below 0 (background); save it unsigned")
        return np.where(ignored, IGNORED, labels > 0).astype(np.uint8)
    values = config.values or list(range(len(config.classes)))
    classes = np.full(labels.shape, IGNORED, dtype=np.uint8)
    for index, value in enumerate(values):
        classes[labels == value] = index
    if (unknown := labels[(classes == IGNORED) & ~ignored]).size:
        meaning = ", ".join(f"{value} = {name}" for value, name in zip(values, config.classes, strict=True))
        raise SlideError(
            f"{source}: {unknown.size} pixels belong to no class ({meaning}), the first has value {unknown[0]}; "
            "fix the file or training.values, or set training.ignored"
        )
    return classes


def training_objects(
    labels: NDArray[Any], config: LabelConfig, *, source: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the classes that are learned from a region of labels, and its objects.

    Objects are the ids of ``kind: instances``, separated by a line of background where they touch, or the 4-connected
    components of each class but background; unannotated pixels are no object.

    Returns
    -------
    classes : (rows, columns) uint8 array
    objects : (rows, columns) int32 array, 0 = background
    """
    classes = class_map(labels, config, source=source)
    if config.kind == "classes":
        found = np.where(classes == IGNORED, 0, classes)
        return classes, skimage.measure.label(found, background=0, connectivity=1).astype(np.int32)
    ids = np.where(classes == 1, labels, 0)
    objects = separate_touching(relabel_sequential(ids)[0].astype(np.int32))
    return np.where(classes == IGNORED, IGNORED, objects > 0).astype(np.uint8), objects


def training_classes(labels: NDArray[Any], config: LabelConfig, *, source: Path) -> NDArray[np.uint8]:
    """Return the class map that is learned from a region of labels: :func:`class_map` with touching objects separated.

    A region must reach one pixel further to the right and below than the pixels that are used.
    """
    classes = class_map(labels, config, source=source)
    if config.kind == "instances":
        classes[touching_pixels(np.where(classes == 1, labels, 0))] = 0
    return classes


def separate_touching(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Put a line of background, one pixel wide, between touching objects.

    A pixel becomes background if the pixel to its right or below belongs to another object: then no two objects are
    4-connected, and each has lost at most one pixel along the contact.

    Parameters
    ----------
    objects : (rows, columns) int32 array
        Ids, 0 = background.

    Returns
    -------
    (rows, columns) int32 array
    """
    return np.where(touching_pixels(objects), 0, objects).astype(np.int32)


def touching_pixels(objects: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of objects whose neighbour to the right or below belongs to another object."""
    line = np.zeros(objects.shape, dtype=bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1, :], np.s_[1:, :])):
        line[here] |= (objects[here] != objects[there]) & (objects[here] > 0) & (objects[there] > 0)
    return line
