"""Objects of a stitched label image: connected components that know no tile borders.

Bands of rows are labelled one by one and united where they touch, so memory is set by the band and the number of
objects. The result equals that of labelling the whole image at once, numbers included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import skimage.measure
import zarr
from numpy.typing import NDArray

from pipeline.formats.image import Array

_BAND_PX = 2**22
_CHUNK_PX = 512


class Objects:
    """Object ids of a label image, (rows, columns) uint32, 0 = background; resolved where they are read."""

    dtype = np.dtype(np.uint32)

    def __init__(self, provisional: zarr.Array[Any], final: NDArray[np.uint32]) -> None:
        self._provisional = provisional
        self._final = final
        self.shape: tuple[int, ...] = provisional.shape
        self.count = int(final.max())

    def __getitem__(self, key: Any) -> NDArray[np.uint32]:
        numbers: NDArray[np.uint32] = self._final[np.asarray(self._provisional[key])]
        return numbers


def find_objects(labels: Array, *, scratch: Path, band_px: int = _BAND_PX) -> Objects:
    """Number the 4-connected components of each class but background, in the order of their first pixels.

    Parameters
    ----------
    labels : (rows, columns) array of uint8
        Class map, 0 = background.
    scratch : Path
        A folder for the provisional numbers; it must live as long as the result.
    band_px : int
        About how many pixels are labelled at once.
    """
    rows, columns = labels.shape
    band_rows = max(1, band_px // columns)
    if band_rows > _CHUNK_PX:  # a band is whole chunks, so that none is written twice
        band_rows -= band_rows % _CHUNK_PX
    chunks = (min(band_rows, _CHUNK_PX), _CHUNK_PX)
    provisional = zarr.create_array(
        scratch / "provisional.zarr", shape=(rows, columns), chunks=chunks, dtype="uint32", fill_value=0
    )
    touching: list[NDArray[np.int64]] = []
    count = 0
    above: tuple[NDArray[Any], NDArray[Any]] | None = None
    for top in range(0, rows, band_rows):
        classes = np.asarray(labels[top : top + band_rows])
        numbers = skimage.measure.label(classes, background=0, connectivity=1)
        numbers[numbers > 0] += count
        provisional[top : top + band_rows] = numbers
        if above is not None:
            touching.append(_touching(above, (classes[0], numbers[0])))
        count = max(count, int(numbers.max()))
        above = (classes[-1], numbers[-1])
    return Objects(provisional, _unite(count, touching))


def _touching(above: tuple[NDArray[Any], NDArray[Any]], below: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[np.int64]:
    """Return the pairs of numbers, (n, 2), that one object got in two bands."""
    same = (above[0] == below[0]) & (above[0] > 0)
    return np.unique(np.stack([above[1][same], below[1][same]], axis=1), axis=0).astype(np.int64)


def _unite(count: int, touching: list[NDArray[np.int64]]) -> NDArray[np.uint32]:
    """Return the final number of each provisional one, (count + 1,), counted in the order of first pixels."""
    pairs = np.concatenate(touching) if touching else np.empty((0, 2), dtype=np.int64)
    graph = scipy.sparse.coo_array((np.ones(len(pairs), dtype=bool), pairs.T), shape=(count + 1, count + 1))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    # Provisional numbers rise along rows and bands, so the smallest of a component is that of its first pixel.
    _, first = np.unique(component, return_index=True)
    rank = np.empty(len(first), dtype=np.uint32)
    rank[component[np.sort(first)]] = np.arange(len(first), dtype=np.uint32)
    final: NDArray[np.uint32] = rank[component]
    return final
