"""Turn what annotators save, label images or outlines, into class maps and objects. Integers in, integers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import skimage.measure
from numpy.typing import NDArray

from pipeline.base.arrays import blocks, distinct
from pipeline.base.errors import SlideError
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.outlines import is_annotation
from pipeline.slides.rasterize import draw
from pipeline.slides.slide import Slide, open_plane

IGNORED = 255  # in class maps: not annotated, neither learned nor scored
_WHITE = 255
_BLOCK_PX = (2048, 2048)
_MOST_NAMED = 3  # objects in a warning
_MOST_COMPARED = 100_000  # objects that are looked for in several blocks

Box = tuple[slice, slice]


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


def is_binary_mask(labels: Slide, config: LabelConfig) -> bool:
    """Return whether a label image of ``kind: instances`` marks all objects with one value, 1 or the largest (255).

    Then its objects are the 4-connected components. An image with two ids is recognized in its first block.
    """
    if config.kind != "instances" or is_annotation(labels.path):
        return False
    found: NDArray[Any] = np.empty(0, labels.levels[0].dtype)
    for region in blocks(labels.shape):
        found = np.union1d(found, _ids(labels.read(*region)[0], config))
        if len(found) > 1:
            return False
    return _marks_all(found)


def warnings_of(labels: Slide, config: LabelConfig) -> list[str]:
    """Return what is doubtful about labels: how they were read, one value for all objects, objects in pieces.

    Raises
    ------
    SlideError
        If its pixels are not in the file.
    """
    found = list(labels.inspect())
    if is_annotation(labels.path) or config.kind != "instances":
        return found
    if is_binary_mask(labels, config):
        return [*found, "one value marks all objects, so each connected part is taken for an object"]
    scattered, whole = set[int](), dict[int, Box]()
    for region in blocks(labels.shape, _BLOCK_PX):
        ids = _ids_or_zero(labels.read(*region)[0], config)
        for number, box, has_far_pieces in _objects_within(ids, region, labels.shape):
            if has_far_pieces or (number in whole and _are_apart([whole[number], box])):
                scattered.add(number)
            if len(whole) < _MOST_COMPARED:
                whole[number] = box
    if scattered:
        named = ", ".join(map(str, sorted(scattered)[:_MOST_NAMED])) + (", ..." if len(scattered) > _MOST_NAMED else "")
        found.append(
            f"objects in pieces far apart: {len(scattered)} (id {named}); does each object have an id of its own?"
        )
    return found


def _ids_or_zero(labels: NDArray[Any], config: LabelConfig) -> NDArray[Any]:
    return labels if config.ignored is None else np.where(labels == config.ignored, 0, labels)


def _ids(labels: NDArray[Any], config: LabelConfig) -> NDArray[Any]:
    ids = distinct(_ids_or_zero(labels, config))
    found: NDArray[Any] = ids[ids != 0]
    return found


def _marks_all(ids: NDArray[Any]) -> bool:
    """Return whether these ids, all there are, are one value that programs write for "object"."""
    if len(ids) != 1 or ids.dtype.kind not in "uib":
        return False
    return bool(ids.dtype == bool or ids[0] in (1, _WHITE, np.iinfo(ids.dtype).max))


def _objects_within(ids: NDArray[Any], region: Box, shape: tuple[int, int]) -> Iterator[tuple[int, Box, bool]]:
    """Yield the objects of a region of an image: id, box in the image, whether it has pieces far apart.

    Objects that the region cuts are left out, since their pieces may be connected outside.
    """
    numbers, known = _numbered(ids)
    parts, count = skimage.measure.label(numbers, connectivity=2, return_num=True)
    owners = np.zeros(count + 1, np.intp)
    owners[parts] = numbers
    pieces = np.bincount(owners[1:])
    for number, inside in enumerate(scipy.ndimage.find_objects(numbers), start=1):
        box = _moved(inside, region)
        if any(
            (one.start == edge.start > 0) or (one.stop == edge.stop < length)
            for one, edge, length in zip(box, region, shape, strict=True)
        ):
            continue
        yield int(known[number - 1]), box, pieces[number] > 1 and _are_apart(_boxes(numbers[inside] == number))


def _numbered(ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the objects numbered from 1 in the order of their ids, 0 = background, and the ids in this order."""
    known = distinct(ids)
    known = known[known > 0]
    return np.where(ids > 0, np.searchsorted(known, ids) + 1, 0), known


def _boxes(mask: NDArray[np.bool_]) -> list[Box]:
    """Return the box of each 8-connected piece."""
    boxes: list[Box] = scipy.ndimage.find_objects(skimage.measure.label(mask, connectivity=2))
    return boxes


def _moved(inside: Box, region: Box) -> Box:
    """Return a box of a region as one of the image."""
    starts = [part.start for part in region]
    rows, columns = (slice(at + part.start, at + part.stop) for at, part in zip(starts, inside, strict=True))
    return rows, columns


def _are_apart(boxes: list[Box]) -> bool:
    """Return whether one of some boxes is further from the largest of them than that is wide."""
    sides = [max(part.stop - part.start for part in box) for box in boxes]
    largest = boxes[int(np.argmax(sides))]
    gaps = [
        max(max(one.start - other.stop, other.start - one.stop, 0) for one, other in zip(box, largest, strict=True))
        for box in boxes
    ]
    return bool(max(gaps) > max(sides))


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
    if labels.dtype == bool and 1 not in values:  # one bit a pixel: white is 1 in some files, 255 in others
        labels = labels.astype(np.uint8) * np.uint8(_WHITE)
    classes = np.full(labels.shape, IGNORED, dtype=np.uint8)
    for index, value in enumerate(values):
        classes[labels == value] = index
    if (unknown := labels[(classes == IGNORED) & ~ignored]).size:
        raise SlideError(f"{source}: {_without_class(unknown, values, config.classes)}")
    return classes


def _without_class(unknown: NDArray[Any], values: Sequence[int], names: Sequence[str]) -> str:
    """Return which values belong to no class, and what to do: many of them are ids of objects."""
    found, counts = np.unique(unknown, return_counts=True)
    listed = ", ".join(f"{value} ({count} px)" for value, count in zip(found[:_MOST_NAMED], counts, strict=False))
    more = ", ..." if len(found) > _MOST_NAMED else ""
    meaning = ", ".join(f"{value} = {name}" for value, name in zip(values, names, strict=True))
    what = "if they are ids of objects, set training.kind: instances; else " if len(found) > 1 else ""
    return (
        f"pixels of value {listed}{more} belong to no class ({meaning}); {what}fix the file or training.values, or set "
        "training.ignored"
    )


def training_objects(
    labels: NDArray[Any], config: LabelConfig, *, source: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the classes that are learned from a region of labels, and its objects.

    Objects are the ids of ``kind: instances``, separated by a line of background where they touch, or the 4-connected
    components of each class but background, and of a binary mask; unannotated pixels are no object.

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
    if _marks_all(_ids(labels, config)) and not is_annotation(source):
        return classes, skimage.measure.label(ids > 0, connectivity=1).astype(np.int32)
    objects = separate_touching(_numbered(ids)[0].astype(np.int32))
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
