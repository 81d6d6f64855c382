"""A mask as a file: its class map, and the object ids that it carries."""

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

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError
from pipeline.slides.slide import Slide, open_slide

AGAIN = "remove the mask, so that it is made again"


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
        Object ids, 0 = background; None where the file has no such image (``masks.instances: none``).
    """

    slide: Slide
    classes: Array
    instances: Array | None


@contextmanager
def open_mask(path: Path, *, memory_mb: int) -> Iterator[Mask]:
    """Open a mask that ``stitch`` wrote (``.ome.tiff``), or any other image file as a class map alone.

    Parameters
    ----------
    memory_mb : int
        Most memory that decoding one piece may take.

    Raises
    ------
    SlideError
        If it is damaged, pixels included, or an ``.ome.tiff`` without an image ``classes``.
    """
    with open_slide(path, memory_mb=memory_mb) as slide, ExitStack() as stack:
        ids = _open_instances(path, stack) if path.name.lower().endswith(".ome.tiff") else None
        yield Mask(slide=slide, classes=Plane(slide), instances=ids)


def _open_instances(path: Path, stack: ExitStack) -> _Ids | None:
    try:
        tiff = stack.enter_context(tifffile.TiffFile(path))
        images = {series.name: series for series in tiff.series}
        if "classes" not in images:  # so it is with a plain TIFF, and with the front part of a mask
            raise ValueError(f"no image 'classes' among {', '.join(map(repr, images))}")
        store = stack.enter_context(images["instances"].aszarr(level=0)) if "instances" in images else None
        return None if store is None else _Ids(path, zarr.open_array(store, mode="r"))
    except Exception as error:  # tifffile raises anything
        raise SlideError(f"{path}: not a whole mask of Slidemill: {error}; {AGAIN}") from error


class Plane:
    """The first channel of a slide, at one level, as an array of rows and columns."""

    def __init__(self, slide: Slide, level: int = 0) -> None:
        self.shape: tuple[int, ...] = slide.levels[level].shape
        self.dtype: np.dtype[Any] = slide.levels[level].dtype
        self._slide, self._level = slide, level

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        plane: NDArray[Any] = self._slide.read(rows, columns, self._level)[0]
        return plane


class _Ids:
    """Object ids. Pixels that cannot be decoded are a fault of the file."""

    def __init__(self, path: Path, pixels: Any) -> None:
        self.shape: tuple[int, ...] = pixels.shape
        self.dtype: np.dtype[Any] = pixels.dtype
        self._path, self._pixels = path, pixels

    def __getitem__(self, key: Any) -> NDArray[Any]:
        try:
            return np.asarray(self._pixels[key])
        except Exception as error:  # decoders of damaged files raise anything
            raise SlideError(f"{self._path}: cannot be read: {error}; {AGAIN}") from error
