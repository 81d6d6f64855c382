"""Small pictures of a slide with the outlines of its mask (and reference), for the report page."""

from __future__ import annotations

import io

import numpy as np
import skimage.segmentation
from numpy.typing import NDArray
from PIL import Image

from pipeline.intensity import measure, normalize
from pipeline.slides import Slide

# Orange and sky blue of Okabe and Ito (2008), which the colour-blind tell apart.
PREDICTED_RGB, TRUTH_RGB = (230, 159, 0), (86, 180, 233)

_LARGEST_PX = 768
_READ_PX = 2**22


def picture_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the picture of a slide: its own, or scaled to 768 px on the longer side."""
    scale = min(1.0, _LARGEST_PX / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def shrink(slide: Slide, shape: tuple[int, int]) -> NDArray[np.generic]:
    """Pick (channels, *shape) pixels evenly from the coarsest level that has as many, reading it band by band."""
    index = max(
        (
            number
            for number, level in enumerate(slide.levels)
            if level.shape[0] >= shape[0] and level.shape[1] >= shape[1]
        ),
        default=0,
    )
    level = slide.levels[index]
    rows, columns = (_centres(level.shape[axis], shape[axis]) for axis in (0, 1))
    together = max(1, _READ_PX // (level.shape[1] * max(1, level.shape[0] // shape[0])))
    bands = []
    for first in range(0, len(rows), together):
        picked = rows[first : first + together]
        band = slide.read(slice(int(picked[0]), int(picked[-1]) + 1), slice(None), index)
        bands.append(band[:, picked - picked[0]][:, :, columns])
    return np.concatenate(bands, axis=1)


def overlay(
    image: NDArray[np.generic], predicted: NDArray[np.generic], truth: NDArray[np.generic] | None
) -> NDArray[np.uint8]:
    """Draw the outlines of ``predicted`` and ``truth`` into a grey picture of ``image``.

    Parameters
    ----------
    image : (channels, rows, columns) array
    predicted : (rows, columns) integer array
    truth : (rows, columns) integer array or None

    Returns
    -------
    (rows, columns, 3) uint8 array
    """
    grey = normalize(image, measure(lambda: iter([image]), image.dtype)).mean(axis=0)
    picture = np.repeat((grey.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    for labels, colour in ((truth, TRUTH_RGB), (predicted, PREDICTED_RGB)):
        if labels is not None:
            picture[skimage.segmentation.find_boundaries(labels, mode="inner")] = colour
    return picture


def to_png(picture: NDArray[np.uint8]) -> bytes:
    """Return an (rows, columns, 3) uint8 picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _centres(length: int, count: int) -> NDArray[np.intp]:
    """Return ``count`` indices spread evenly over [0, length)."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.intp)
