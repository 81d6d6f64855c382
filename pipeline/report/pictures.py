"""Small pictures of a result for the review page: the slide, predicted and true classes, outlines, differences.

The jobs make them, which have the slide, the mask and the reference open: files of a few kB come out. Slides are read
band by band from the coarsest level with enough pixels, so memory does not grow with them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.base import paths
from pipeline.base.arrays import Array, bands
from pipeline.base.errors import StorageError
from pipeline.base.files import why_not_written
from pipeline.base.palette import (
    BACKGROUND_RGB,
    CONFUSED_RGB,
    EXTRA_RGB,
    MISSED_RGB,
    PREDICTED_RGB,
    RGB,
    TRUTH_RGB,
    class_rgb,
)
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.intensity import measure_intensities, normalize
from pipeline.slides.labels import class_map
from pipeline.slides.slide import Slide

EXTRA, MISSED, CONFUSED = 1, 2, 3
SIDE_PX = 256  # the longer side of all pictures but outlines
_OUTLINES_PX = 512  # of outlines: lines are thin
_LARGEST_WITH_OUTLINES_PX = 4 * _OUTLINES_PX  # of larger slides, objects would be dots: their classes have outlines

# Limits of a file, in bytes per pixel; most micrographs take less. All pictures of a result take at most 60 kB.
_IMAGE_BYTES_PER_PX, _LABELS_BYTES_PER_PX, _OUTLINES_BYTES = 0.22, 0.1, 10_000
_FEWEST_BYTES = 400
_QUALITIES = (80, 35)
MOST_BARS = 15  # of a histogram whose objects can be marked: a pixel has 4 bits
_SAMPLES = 3  # per side: pixels that are averaged into one
_READ_PX = 2**22


def picture_shape(shape: tuple[int, int], side_px: int = SIDE_PX) -> tuple[int, int]:
    """Return rows and columns of the pictures of a slide: its own, or scaled to ``side_px`` on the longer side."""
    scale = min(1.0, side_px / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def write_pictures(pictures: Mapping[str, bytes], *, model: str, sample: str) -> list[Path]:
    """Write pictures of a sample by their names in ``paths.PICTURE``; return the files.

    They get their names at once: renaming costs more than drawing, and the ledger names complete ones only.

    Raises
    ------
    StorageError
        If writing fails (full disk, quota, no permission).
    """
    files = {Path(paths.PICTURE[name].format(model=model, sample=sample)): name for name in pictures}
    for path, name in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pictures[name])
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {why_not_written(path, error)}") from error
    return list(files)


def pictures_of_mask(slide: Slide, mask: Slide, objects: Array, *, num_classes: int) -> dict[str, bytes]:
    """Return ``image`` (WebP), ``predicted`` and ``predicted_outlines`` (PNG) of a slide and its mask.

    Parameters
    ----------
    slide, mask : Slide
        The image and its predicted classes (channel 0). Three channels of 8 bits are shown in colour, others as their
        mean in grey; pixels that are NaN or infinite are black.
    objects : (rows, columns) integer array
        Object ids of the mask, 0 = background.
    num_classes : int
        Number of classes; class 0 is transparent.

    Raises
    ------
    SlideError
        If a file is damaged.
    """
    shape = picture_shape(slide.shape)
    predicted = shrink(mask, shape)[0]
    return {
        "image": _webp(_picture(slide, shape)),
        "predicted": _png(predicted, _class_colours(num_classes)),
        "predicted_outlines": _outlines(
            predicted if max(mask.shape) > _LARGEST_WITH_OUTLINES_PX else _shrink_ids(objects), PREDICTED_RGB
        ),
    }


def picture_of_marks(bars: NDArray[np.uint8], centroids_px: NDArray[np.float64], shape: tuple[int, int]) -> bytes:
    """Return a dot for each object, as grey as the bar of a histogram is high in number (PNG).

    Parameters
    ----------
    bars : (measurements, objects) uint8 array
        The bar that each object is in, from 1; 0 where it is in none. The picture has all measurements, one below the
        other, each of the size of other pictures: a browser shows these enlarged, which loses no dot.
    centroids_px : (objects, 2) float64 array
        Row and column; the centre of the first pixel is (0, 0).
    shape : (rows, columns)
        Of the slide.
    """
    rows, columns = picture_shape(shape)
    row, column = ((centroids_px + 0.5) * (rows, columns) / shape).astype(np.intp).T
    dots = np.zeros((max(1, len(bars)), rows, columns), np.uint8)
    dots[: len(bars), row, column] = bars
    greys = [(grey, grey, grey) for grey in np.linspace(0, 255, MOST_BARS + 1).astype(int).tolist()]
    return _indexed(dots.reshape(-1, columns), greys)


def pictures_of_errors(truth: Slide, mask: Slide, labels: LabelConfig) -> dict[str, bytes]:
    """Return ``truth``, ``truth_outlines`` and ``error`` (PNG) of a mask.

    Parameters
    ----------
    truth, mask : Slide
        True and predicted classes (channel 0) of one shape.
    labels : LabelConfig
        What the values of ``truth`` mean; class 0 is transparent.

    Raises
    ------
    SlideError
        If a file is damaged, or a value of ``truth`` belongs to no class.
    """
    shape, num_classes = picture_shape(mask.shape), len(labels.classes)
    seen = class_map(shrink(truth, shape)[0], labels, source=truth.path)
    wrong = error_map(seen, shrink(mask, shape)[0], num_classes=num_classes)
    return {
        "truth": _png(seen, _class_colours(num_classes)),
        "truth_outlines": _outlines(
            _only_classes(seen, num_classes)
            if max(mask.shape) > _LARGEST_WITH_OUTLINES_PX
            else _true_objects(truth, labels),
            TRUTH_RGB,
        ),
        "error": _png(wrong, [BACKGROUND_RGB, EXTRA_RGB, MISSED_RGB, CONFUSED_RGB]),
    }


def pictures_of_training(pixels: NDArray[np.float32], truth: NDArray[Any], predicted: NDArray[Any]) -> dict[str, bytes]:
    """Return ``image``, ``predicted_outlines`` and ``truth_outlines`` of small arrays.

    Parameters
    ----------
    pixels : (channels, rows, columns) float32 array
        Normalized. Three channels are shown in colour, others as their mean in grey.
    truth, predicted : (rows, columns) integer arrays
        Classes or object ids, 0 = background.
    """
    shown = (255 * pixels.clip(0, 1)).round().astype(np.uint8)
    image = shown.transpose(1, 2, 0) if len(shown) == 3 else shown.mean(axis=0).astype(np.uint8)
    return {
        "image": _webp(np.ascontiguousarray(image)),
        "predicted_outlines": _outlines(predicted, PREDICTED_RGB),
        "truth_outlines": _outlines(truth, TRUTH_RGB),
    }


def _shrink_ids(objects: Array) -> NDArray[Any]:
    """Pick pixels evenly from an array that is small enough to be read."""
    rows, columns = objects.shape
    picked = _even(rows, columns, picture_shape((rows, columns), _OUTLINES_PX))
    return np.asarray(objects[:, :])[np.ix_(*picked)]


def _true_objects(truth: Slide, labels: LabelConfig) -> NDArray[Any]:
    """Return the ids of true objects, or their classes where there are no ids; 0 where nothing is annotated."""
    values = shrink(truth, picture_shape(truth.shape, _OUTLINES_PX))[0]
    classes = _only_classes(class_map(values, labels, source=truth.path), len(labels.classes))
    return np.where(classes > 0, values, 0) if labels.kind == "instances" else classes


def _only_classes(labels: NDArray[Any], num_classes: int) -> NDArray[Any]:
    return np.where(labels < num_classes, labels, 0)


def edges(objects: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of objects that have a 4-neighbour of another object or of the background.

    Parameters
    ----------
    objects : (rows, columns) integer array
        Object ids, 0 = background.

    Returns
    -------
    (rows, columns) bool array
        As ``skimage.segmentation.find_boundaries`` with ``mode="inner"``, in a tenth of the time.
    """
    found = np.zeros(objects.shape, dtype=bool)
    across, down = objects[:, 1:] != objects[:, :-1], objects[1:] != objects[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found & (objects > 0)


def _outlines(objects: NDArray[Any], colour: RGB) -> bytes:
    """Return the outermost pixels of each object as a picture, from fewer pixels until it is within its size limit."""
    while True:
        content = _indexed(edges(objects).astype(np.uint8), [BACKGROUND_RGB, colour])
        if len(content) <= _OUTLINES_BYTES or max(objects.shape) == 1:
            return content
        objects = objects[::2, ::2]


def error_map(truth: NDArray[Any], predicted: NDArray[Any], *, num_classes: int) -> NDArray[np.uint8]:
    """Return the kind of error at every pixel.

    Parameters
    ----------
    truth, predicted : (rows, columns) integer arrays
        Classes; a pixel with ``num_classes`` or above is ignored.

    Returns
    -------
    (rows, columns) uint8 array
        0, or EXTRA (predicted where the truth is class 0), MISSED (the reverse), CONFUSED (two other classes).
    """
    wrong = (truth != predicted) & (truth < num_classes) & (predicted < num_classes)
    kind = np.where(truth == 0, EXTRA, np.where(predicted == 0, MISSED, CONFUSED))
    return np.where(wrong, kind, 0).astype(np.uint8)


def shrink(slide: Slide, shape: tuple[int, int]) -> NDArray[Any]:
    """Pick (channels, *shape) pixels evenly from the coarsest level that has as many, reading it band by band."""
    levels = [slide.shape_of(number) for number in range(len(slide.levels))]
    large = [number for number, (rows, columns) in enumerate(levels) if rows >= shape[0] and columns >= shape[1]]
    index = max(large, default=0)
    level = levels[index]
    rows, columns = _even(*level, shape)
    together = max(1, _READ_PX // (level[1] * max(1, level[0] // shape[0])))
    pieces = []
    for part in bands(len(rows), together):
        picked = rows[part]
        band = slide.read(slice(int(picked[0]), int(picked[-1]) + 1), slice(None), index)
        pieces.append(band[:, picked - picked[0]][:, :, columns])
    return np.concatenate(pieces, axis=1)


def _even(rows: int, columns: int, shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns that are spread evenly, as many as ``shape`` says."""
    down, across = (
        ((np.arange(count) + 0.5) * length / count).astype(np.intp)
        for length, count in zip((rows, columns), shape, strict=True)
    )
    return down, across


def _picture(slide: Slide, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the slide as (rows, columns, 3) in its colours, or as (rows, columns) in grey."""
    (rows, columns), each = shape, 1 if slide.shape == shape else _SAMPLES
    picked = shrink(slide, (rows * each, columns * each))
    means: NDArray[Any] = picked  # small integers stay small integers: their percentiles are found faster
    if each > 1:
        means = picked.reshape(-1, rows, each, columns, each).mean(axis=(2, 4))
    if slide.channels == 3 and picked.dtype == np.uint8:
        return means.transpose(1, 2, 0).round().astype(np.uint8)
    means = np.nan_to_num(means, posinf=0.0, neginf=0.0)
    grey: NDArray[Any] = normalize(means, measure_intensities(means)).mean(axis=0)
    return (grey.clip(0, 1) * 255).round().astype(np.uint8)


def _class_colours(num_classes: int) -> list[RGB]:
    return [class_rgb(index) for index in range(num_classes)]


def _webp(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture in the best quality within its size limit, reduced if none fits."""
    limit = max(_FEWEST_BYTES, _IMAGE_BYTES_PER_PX * picture.shape[0] * picture.shape[1])
    shown = Image.fromarray(picture)
    while True:
        for quality in _QUALITIES:
            content = _saved(shown, "webp", quality=quality, method=0)
            if len(content) <= limit or max(shown.size) == 1:
                return content
        scale = max(0.5, min(0.95, math.sqrt(limit / len(content))))
        shown = shown.resize((max(1, int(shown.width * scale)), max(1, int(shown.height * scale))))


def _png(labels: NDArray[Any], colours: list[RGB]) -> bytes:
    """Return an indexed picture, 0 and unknown labels transparent, reduced until it is within its size limit."""
    indices = _only_classes(labels, len(colours)).astype(np.uint8)
    limit = max(_FEWEST_BYTES, _LABELS_BYTES_PER_PX * indices.size)
    while True:
        content = _indexed(indices, colours)
        if len(content) <= limit or max(indices.shape) == 1:
            return content
        indices = indices[::2, ::2]


def _indexed(indices: NDArray[np.uint8], colours: list[RGB]) -> bytes:
    """Return a PNG with a palette; index 0 is transparent."""
    picture = Image.fromarray(indices)
    picture.putpalette([part for colour in colours for part in colour])
    bits = next(bits for bits in (1, 2, 4, 8) if len(colours) <= 2**bits)
    return _saved(picture, "png", bits=bits, transparency=0)


def _saved(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()
