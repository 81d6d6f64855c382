"""Maps of label images of any size, weights and targets of heads: labels are read by region, maps written in bands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from pipeline.base.arrays import Array, LazyArray, bands, blocks
from pipeline.masks.components import find_objects
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import IGNORED, class_map, is_binary_mask, training_classes
from pipeline.slides.slide import Slide
from pipeline.training.data.weight_map import Labels

_TILE_PX = 256
_BAND_PX = 1024
_CLASSIC_BYTES = 2**32 - 2**25  # largest file that is not a BigTIFF


def count_classes(labels: Slide, config: LabelConfig) -> NDArray[np.int64]:
    """Return the number of annotated pixels of each class, (classes,)."""
    counts = np.zeros(IGNORED + 1, dtype=np.int64)
    for region in blocks(labels.shape):
        classes = class_map(labels.read(*region)[0], config, source=labels.path)
        counts += np.bincount(classes.ravel(), minlength=len(counts))
    return counts[: len(config.classes)]


def objects_of(labels: Slide, config: LabelConfig, *, scratch: Path) -> LazyArray:
    """Return the objects of labels as annotated, touching or not, (rows, columns) of ids, 0 = background.

    Objects are the ids of ``kind: instances``, or the 4-connected components of a binary mask and of each class but the
    first, without pixels that are not annotated.

    Parameters
    ----------
    labels : Slide
        A label image on the grid of its image.
    scratch : Path
        A folder for the components; needed as long as the result.
    """
    if config.kind == "instances" and not is_binary_mask(labels, config):

        def instances(rows: slice, columns: slice) -> NDArray[Any]:
            ids = labels.read(rows, columns)[0]
            return np.where(class_map(ids, config, source=labels.path) == 1, ids, 0)

        return LazyArray(labels.shape, labels.levels[0].dtype, instances)

    def annotated(rows: slice, columns: slice) -> NDArray[np.uint8]:
        classes = class_map(labels.read(rows, columns)[0], config, source=labels.path)
        return np.where(classes == IGNORED, np.uint8(0), classes)

    return find_objects(LazyArray(labels.shape, np.dtype(np.uint8), annotated), scratch=scratch)[0]


def label_reader(labels: Slide, config: LabelConfig, objects: Array) -> Callable[[slice, slice], Labels]:
    """Return a function from a region to its class map and objects, as in training.

    Objects are those of :func:`objects_of`, separated by background where they touch. Ids may differ between regions.
    """

    def read(rows: slice, columns: slice) -> Labels:
        plane = labels.read(_one_more(rows, labels.shape[0]), _one_more(columns, labels.shape[1]))[0]
        classes = training_classes(plane, config, source=labels.path)
        classes = classes[: rows.stop - rows.start, : columns.stop - columns.start]
        ids = np.where((classes > 0) & (classes != IGNORED), objects[rows, columns], 0)
        return classes, relabel_sequential(ids)[0].astype(np.int32)

    return read


def write_maps(
    path: Path,
    weights: Iterator[NDArray[np.float16]],
    heads: Sequence[Array],
    shape: tuple[int, int],
    origin: dict[str, Any],
) -> None:
    """Write the weight map and the targets of the heads as the channels of a tiled TIFF with its provenance.

    Parameters
    ----------
    weights : iterator of (rows, columns) arrays
        Bands of whole rows, all but the last a multiple of 256 high.
    heads : sequence of (rows, columns) float32 arrays
        Without any, the file is float16.
    """
    dtype = np.dtype(np.float32 if heads else np.float16)
    of_heads = (head[rows, :] for head in heads for rows in bands(shape[0], _BAND_PX))
    tifffile.imwrite(
        path,
        (tile.astype(dtype, copy=False) for tile in _tiles(chain(weights, of_heads))),
        shape=(1 + len(heads), *shape) if heads else shape,
        dtype=dtype,
        tile=(_TILE_PX, _TILE_PX),
        compression="zlib",
        photometric="minisblack",
        planarconfig="separate" if heads else None,
        bigtiff=dtype.itemsize * (1 + len(heads)) * shape[0] * shape[1] > _CLASSIC_BYTES,
        metadata=origin,
    )


def _tiles(parts: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for band in parts:
        for region in blocks(band.shape, (_TILE_PX, _TILE_PX)):
            yield band[region]


def _one_more(part: slice, length: int) -> slice:
    """Add a row or column, if there is one: the background between touching objects is made from it."""
    return slice(part.start, min(part.stop + 1, length))
