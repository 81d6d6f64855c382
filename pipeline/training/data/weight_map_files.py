"""Weight maps of label images of any size: labels are read by region, weight maps are written in bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from pipeline.base.arrays import Array, LazyArray, blocks
from pipeline.masks.instances import find_objects
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import IGNORED, class_map, training_classes
from pipeline.slides.slide import Slide
from pipeline.training.data.weight_map import Labels

_TILE_PX = 256
_CLASSIC_BYTES = 2**32 - 2**25  # largest file that is not a BigTIFF


def count_classes(labels: Slide, config: LabelConfig) -> NDArray[np.int64]:
    """Return the number of annotated pixels of each class, (classes,)."""
    counts = np.zeros(IGNORED + 1, dtype=np.int64)
    for region in blocks(labels.shape):
        classes = class_map(labels.read(*region)[0], config, source=labels.path)
        counts += np.bincount(classes.ravel(), minlength=len(counts))
    return counts[: len(config.classes)]


def label_reader(labels: Slide, config: LabelConfig, *, scratch: Path) -> Callable[[slice, slice], Labels]:
    """Return a function from a region to its class map and objects, as in training.

    Objects are the ids of ``kind: instances``, separated by background where they touch, or the 4-connected components
    of each class but the first, without pixels that are not annotated. Ids may differ between regions.

    Parameters
    ----------
    labels : Slide
        A label image on the grid of its image.
    scratch : Path
        A folder for the components; needed as long as the function.
    """
    if config.kind == "instances":
        return partial(_instances_in, labels, config)

    def annotated(rows: slice, columns: slice) -> NDArray[np.uint8]:
        classes = class_map(labels.read(rows, columns)[0], config, source=labels.path)
        return np.where(classes == IGNORED, np.uint8(0), classes)

    objects, _ = find_objects(LazyArray(labels.shape, np.dtype(np.uint8), annotated), scratch=scratch)
    return partial(_components_in, labels, config, objects)


def write_weights(
    path: Path, bands: Iterator[NDArray[np.float16]], shape: tuple[int, int], origin: dict[str, Any]
) -> None:
    """Write bands of whole rows, all but the last a multiple of 256 high, as a tiled TIFF with its provenance."""
    tifffile.imwrite(
        path,
        _tiles(bands),
        shape=shape,
        dtype=np.float16,
        tile=(_TILE_PX, _TILE_PX),
        compression="zlib",
        bigtiff=2 * shape[0] * shape[1] > _CLASSIC_BYTES,
        metadata=origin,
    )


def _tiles(bands: Iterator[NDArray[np.float16]]) -> Iterator[NDArray[np.float16]]:
    for band in bands:
        for region in blocks(band.shape, (_TILE_PX, _TILE_PX)):
            yield band[region]


def _instances_in(labels: Slide, config: LabelConfig, rows: slice, columns: slice) -> Labels:
    ids = labels.read(_one_more(rows, labels.shape[0]), _one_more(columns, labels.shape[1]))[0]
    classes = training_classes(ids, config, source=labels.path)
    inside = slice(rows.stop - rows.start), slice(columns.stop - columns.start)
    return classes[inside], _numbered(np.where(classes == 1, ids, 0)[inside])


def _one_more(part: slice, length: int) -> slice:
    """Add a row or column, if there is one: the background between touching objects is made from it."""
    return slice(part.start, min(part.stop + 1, length))


def _components_in(labels: Slide, config: LabelConfig, objects: Array, rows: slice, columns: slice) -> Labels:
    classes = class_map(labels.read(rows, columns)[0], config, source=labels.path)
    return classes, _numbered(objects[rows, columns])


def _numbered(objects: NDArray[Any]) -> NDArray[np.int32]:
    """Number the objects of a region from 1."""
    numbers: NDArray[np.int32] = relabel_sequential(objects)[0].astype(np.int32)
    return numbers
