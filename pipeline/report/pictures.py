"""Small pictures of a slide for the review page: the slide itself, predicted and true classes, and their differences.

A slide goes in, files of a few kB come out. Slides are read band by band from the coarsest level with enough pixels, so
memory does not grow with them. The more pictures a page has, the smaller they are.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.arrays import bands
from pipeline.base.palette import BACKGROUND_RGB, CONFUSED_RGB, EXTRA_RGB, MISSED_RGB, RGB, class_rgb
from pipeline.report.page.page_types import Layers
from pipeline.slides.intensity import measure_intensities, normalize
from pipeline.slides.slide import Slide

EXTRA, MISSED, CONFUSED = 1, 2, 3

_PAGE_BYTES = 15_000_000
_ROW_BYTES = 2_500  # of a table row of many columns
_SMALLEST_PX, _LARGEST_PX, _STEP_PX = 48, 768, 8
_IMAGE_BYTES_PER_PX, _LABELS_BYTES_PER_PX = 0.22, 0.06  # limits of a file; most micrographs take less
_FEWEST_BYTES = 400
_QUALITIES = (80, 65, 50, 35)
_SAMPLES = 3  # per side: pixels that are averaged into one
_READ_PX = 2**22


def side_px(count: int) -> int:
    """Return the longer side of the pictures of ``count`` results on one page.

    At most 768 px, and such that the page stays below 15 MB for any slides (up to about 3,000 results).
    """
    for_one = 0.75 * (_PAGE_BYTES / max(1, count) - _ROW_BYTES)  # base64 writes 3 bytes as 4 characters
    side = math.sqrt(max(0.0, for_one) / (_IMAGE_BYTES_PER_PX + 3 * _LABELS_BYTES_PER_PX))
    return min(_LARGEST_PX, max(_SMALLEST_PX, int(side) // _STEP_PX * _STEP_PX))


def picture_shape(shape: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Return rows and columns of the picture of a slide: its own, or scaled to ``side_px`` on the longer side."""
    scale = min(1.0, side_px / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def layers_of(slide: Slide, mask: Slide, truth: NDArray[Any] | None, *, side_px: int, num_classes: int) -> Layers:
    """Return the pictures of one result.

    Parameters
    ----------
    slide, mask : Slide
        The image and its predicted classes (channel 0). Three channels of 8 bits are shown in colour, others as their
        mean in grey.
    truth : (rows, columns) integer array or None
        True classes, shrunk to ``picture_shape(slide.shape, side_px)``; ``num_classes`` and above are ignored.
    side_px : int
        Longer side of the pictures.
    num_classes : int
        Number of classes; class 0 is transparent.

    Raises
    ------
    ValueError
        If ``truth`` has another shape, or a pixel of the slide is NaN or infinite.
    SlideError
        If a file is damaged.
    """
    shape = picture_shape(slide.shape, side_px)
    if truth is not None and truth.shape != shape:
        raise ValueError(f"{slide.path}: truth has shape {truth.shape}, the picture {shape}")
    predicted = shrink(mask, shape)[0]
    colours = [class_rgb(index) for index in range(num_classes)]
    wrong = None if truth is None else error_map(truth, predicted, num_classes=num_classes)
    return Layers(
        image=_webp(_picture(slide, shape)),
        predicted=_png(predicted, colours),
        truth=None if truth is None else _png(truth, colours),
        error=None if wrong is None else _png(wrong, [BACKGROUND_RGB, EXTRA_RGB, MISSED_RGB, CONFUSED_RGB]),
        shape=shape,
    )


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
    rows, columns = (
        ((np.arange(count) + 0.5) * length / count).astype(np.intp) for length, count in zip(level, shape, strict=True)
    )
    together = max(1, _READ_PX // (level[1] * max(1, level[0] // shape[0])))
    pieces = []
    for part in bands(len(rows), together):
        picked = rows[part]
        band = slide.read(slice(int(picked[0]), int(picked[-1]) + 1), slice(None), index)
        pieces.append(band[:, picked - picked[0]][:, :, columns])
    return np.concatenate(pieces, axis=1)


def _picture(slide: Slide, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the slide as (rows, columns, 3) in its colours, or as (rows, columns) in grey."""
    rows, columns = shape
    picked = shrink(slide, (rows * _SAMPLES, columns * _SAMPLES))
    means: NDArray[Any] = picked.reshape(-1, rows, _SAMPLES, columns, _SAMPLES).mean(axis=(2, 4))
    if slide.channels == 3 and picked.dtype == np.uint8:
        return means.transpose(1, 2, 0).round().astype(np.uint8)
    grey: NDArray[Any] = normalize(means, measure_intensities(lambda: iter([means]), means.dtype)).mean(axis=0)
    return (grey.clip(0, 1) * 255).round().astype(np.uint8)


def _webp(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture in the best quality within its size limit, reduced if none fits."""
    limit = max(_FEWEST_BYTES, _IMAGE_BYTES_PER_PX * picture.shape[0] * picture.shape[1])
    shown = Image.fromarray(picture)
    while True:
        for quality in _QUALITIES:
            content = _saved(shown, "webp", quality=quality, method=4)
            if len(content) <= limit or max(shown.size) == 1:
                return content
        scale = max(0.5, min(0.95, math.sqrt(limit / len(content))))
        shown = shown.resize((max(1, int(shown.width * scale)), max(1, int(shown.height * scale))))


def _png(labels: NDArray[Any], colours: list[RGB]) -> bytes:
    """Return an indexed picture, 0 and unknown labels transparent, reduced until it is within its size limit."""
    indices = np.where(labels < len(colours), labels, 0).astype(np.uint8)
    limit = max(_FEWEST_BYTES, _LABELS_BYTES_PER_PX * indices.size)
    bits = next(bits for bits in (1, 2, 4, 8) if len(colours) <= 2**bits)
    while True:
        picture = Image.fromarray(indices)
        picture.putpalette([part for colour in colours for part in colour])
        content = _saved(picture, "png", bits=bits, transparency=0, optimize=True)
        if len(content) <= limit or max(indices.shape) == 1:
            return content
        indices = indices[::2, ::2]


def _saved(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()
