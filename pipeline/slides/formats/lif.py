"""Read Leica LIF with the package liffile: images are series, planes are decoded one by one."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import liffile
import numpy as np
from numpy.typing import NDArray

from pipeline.slides.formats.frames import array_of_frames
from pipeline.slides.formats.image import Image, PixelSize, Series, pixel_size

_SPECTRAL = "λΛ"  # emission and excitation wavelengths are channels where there are no others


def open_lif(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the images of a LIF file."""
    file = stack.enter_context(liffile.LifFile(path))
    return [Series(name=image.name, open=partial(_image, image, budget_bytes)) for image in file.images]


def _image(image: liffile.LifImage, budget_bytes: int) -> Image:
    dims = image.dims
    frame_axes = 3 if "S" in dims else 2
    leading = dims[: len(dims) - frame_axes]

    def read(index: tuple[int, ...]) -> NDArray[np.generic]:
        return np.asarray(image.frame(**dict(zip(leading, map(int, index), strict=True))))

    pixels = array_of_frames(image.shape, image.dtype, read, frame_axes=frame_axes, budget_bytes=budget_bytes)
    axes = "".join(dims)
    spectra = [axis for axis in _SPECTRAL if axis in axes]
    if spectra and "C" not in axes:
        axes = axes.replace(spectra[0], "C")
    return Image(levels=(pixels,), axes=axes, pixel_size_um=_pixel_size(image))


def _pixel_size(image: liffile.LifImage) -> PixelSize | None:
    """Return the pixel size; the file states the positions of the first and the last pixel in m."""
    positions = [image.coords.get(axis, np.empty(0)) for axis in "YX"]
    if min(map(len, positions)) < 2:
        return None
    rows, columns = (float(abs(ends[-1] - ends[0]) / (len(ends) - 1)) * 1e6 for ends in positions)
    return pixel_size(rows, columns)
