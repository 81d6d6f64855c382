"""Read Leica LIF with the package liffile: images are series, planes are decoded one by one."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import liffile
import numpy as np
from numpy.typing import NDArray

from pipeline.slides.formats.frames import array_of_frames
from pipeline.slides.formats.image import Image, PixelSize, Series, pixel_size, z_step

_SPECTRAL = "λΛ"  # emission and excitation wavelengths are channels where there are no others


def open_lif(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the images of a LIF file."""
    file = stack.enter_context(liffile.LifFile(path))
    return [Series(name=image.name, open=partial(_image, image, budget_bytes)) for image in file.images]


def _image(image: liffile.LifImage, budget_bytes: int) -> Image:
    frame = image.frames.frame_dims  # the two innermost axes, in any order of scanning, and the samples of a colour
    leading = [axis for axis in image.dims if axis not in frame]

    def read(index: tuple[int, ...]) -> NDArray[np.generic]:
        return np.asarray(image.frame(**dict(zip(leading, map(int, index), strict=True))))

    shape = tuple(image.sizes[axis] for axis in (*leading, *frame))
    pixels = array_of_frames(shape, image.dtype, read, frame_axes=len(frame), budget_bytes=budget_bytes)
    axes = "".join((*leading, *frame))
    spectra = [axis for axis in _SPECTRAL if axis in axes]
    if spectra and "C" not in axes:
        axes = axes.replace(spectra[0], "C")
    rows = "Y" if "Y" in axes else "Z"
    return Image(
        levels=(pixels,),
        axes=axes.replace(rows, "Y"),
        pixel_size_um=_pixel_size(image, rows),
        z_step_um=_z_step(image),
        warnings=() if rows == "Y" else ("a section along x and z: its rows are z",),
    )


def _pixel_size(image: liffile.LifImage, rows: str) -> PixelSize | None:
    sizes = [_distance_um(image, axis) for axis in (rows, "X")]
    return None if None in sizes else pixel_size(*filter(None, sizes))


def _z_step(image: liffile.LifImage) -> float | None:
    return z_step(_distance_um(image, "Z") or 0)


def _distance_um(image: liffile.LifImage, axis: str) -> float | None:
    """Return the distance between two pixels along an axis; the file states the places of the first and last in m."""
    ends = image.coords.get(axis, np.empty(0))
    return float(abs(ends[-1] - ends[0]) / (len(ends) - 1)) * 1e6 if len(ends) > 1 else None
