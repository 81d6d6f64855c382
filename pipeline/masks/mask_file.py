"""Open a mask file: its class map and its object ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides.planes import Plane
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
def open_mask(path: Path, *, memory_mb: int, plane: Plane | None = None) -> Iterator[Mask]:
    """Open a mask that ``stitch`` wrote (``.ome.tiff``), or any other image file as a class map without object ids.

    Parameters
    ----------
    memory_mb : int
        Most memory that decoding one piece may take.
    plane : Plane or None
        Which plane of a stack to open; object ids are those of the whole stack.

    Raises
    ------
    SlideError
        If it is damaged, also when pixels are read later, or is an ``.ome.tiff`` without an image ``classes``.
    """
    place = plane.place if plane else {}
    view = ImageConfig(series=0, z=place.get("z"), t=place.get("t")) if place else None
    with open_slide(path, memory_mb=memory_mb, view=view) as slide:
        ids = _open_instances(slide, place) if path.name.lower().endswith(".ome.tiff") else None
        yield Mask(slide=slide, classes=slide.plane(), instances=ids)


def _open_instances(slide: Slide, place: Mapping[str, int]) -> LazyArray | None:
    """Return the object ids of a plane of a mask; if its pixels cannot be decoded, the error names the file."""
    images = {series.name: series for series in slide.series}
    try:
        if "classes" not in images:  # a plain TIFF, or only the first part of a mask
            raise ValueError(f"no image 'classes' among {', '.join(map(repr, images))}")
        if "instances" not in images:
            return None
        image = images["instances"].open()
    except Exception as error:  # tifffile raises anything
        raise SlideError(f"{slide.path}: not a whole mask of Slidemill: {error}; {REMAKE}") from error
    ids, before = image.levels[0], [place.get(axis.lower(), 0) for axis in image.axes[:-2]]

    def read(*key: Any) -> NDArray[Any]:
        try:
            return np.asarray(ids[(*before, *key)])
        except Exception as error:  # decoders of damaged files raise anything
            raise SlideError(f"{slide.path}: cannot be read: {error}; {REMAKE}") from error

    return LazyArray(ids.shape[-2:], ids.dtype, read)
