"""Open a mask file: its class map and its object ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError
from pipeline.slides.slide import Slide, open_slide

REMAKE = "remove the mask, so that it is made again"  # advice at the end of an error message


@dataclass(frozen=True, kw_only=True)
class Mask:
    """An open mask.

    Attributes
    ----------
    slide : Slide
        The file.
    classes : (rows, columns) array
        Class map, 0 = background.
    instances : (rows, columns) array or None
        Object ids, 0 = background; None if the file has no such image (``masks.instances: none``).
    """

    slide: Slide
    classes: Array
    instances: Array | None


@contextmanager
def open_mask(path: Path, *, memory_mb: int) -> Iterator[Mask]:
    """Open a mask that ``stitch`` wrote (``.ome.tiff``), or any other image file as a class map without object ids.

    Parameters
    ----------
    memory_mb : int
        Most memory that decoding one piece may take.

    Raises
    ------
    SlideError
        If it is damaged, also when pixels are read later, or is an ``.ome.tiff`` without an image ``classes``.
    """
    with open_slide(path, memory_mb=memory_mb) as slide, ExitStack() as stack:
        ids = _open_instances(path, stack) if path.name.lower().endswith(".ome.tiff") else None
        yield Mask(slide=slide, classes=slide.plane(), instances=ids)


def _open_instances(path: Path, stack: ExitStack) -> LazyArray | None:
    try:
        tiff = stack.enter_context(tifffile.TiffFile(path))
        images = {series.name: series for series in tiff.series}
        if "classes" not in images:  # a plain TIFF, or only the first part of a mask
            raise ValueError(f"no image 'classes' among {', '.join(map(repr, images))}")
        # Decoded in the threads of zarr, as in pipeline/slides/formats/tiff.py
        store = (
            stack.enter_context(images["instances"].aszarr(level=0, maxworkers=2)) if "instances" in images else None
        )
        return None if store is None else _checked(path, zarr.open_array(store, mode="r"))
    except Exception as error:  # tifffile raises anything
        raise SlideError(f"{path}: not a whole mask of Slidemill: {error}; {REMAKE}") from error


def _checked(path: Path, ids: Array) -> LazyArray:
    """Return object ids whose pixels, if they cannot be decoded, raise an error that names the file."""

    def read(*key: Any) -> NDArray[Any]:
        try:
            return np.asarray(ids[key])
        except Exception as error:  # decoders of damaged files raise anything
            raise SlideError(f"{path}: cannot be read: {error}; {REMAKE}") from error

    return LazyArray(ids.shape, ids.dtype, read)
