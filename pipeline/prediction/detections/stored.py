"""Objects in the prediction of a sample: in the group ``objects``, a group for each window that has any.

``places`` are (n, 5) int32: class, then top, left, bottom and right of the box of its pixels on the slide. ``scores``
are (n,) float32. ``masks`` are the bits of the boxes, row by row, one object after the other, each in whole bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from models.base.detection import Detection

OBJECTS = "objects"


def create_group(store: ZipStore) -> None:
    """Create the group, as yet without a window."""
    zarr.create_group(store, path=OBJECTS)


def write_objects(store: ZipStore, window: int, found: Sequence[Detection]) -> None:
    """Write the objects of a window, whose number is new; nothing if there are none."""
    if not found:
        return
    boxes = [[one.number, one.top, one.left, one.slices[0].stop, one.slices[1].stop] for one in found]
    content = {
        "places": np.array(boxes, np.int32),
        "scores": np.array([one.score for one in found], np.float32),
        "masks": np.concatenate([np.packbits(one.mask) for one in found]),
    }
    path = f"{OBJECTS}/{window}"
    zarr.create_group(store, path=path)
    for name, values in content.items():
        zarr.create_array(store, name=f"{path}/{name}", data=values, chunks=values.shape)


def read_objects(group: zarr.Group) -> list[Detection]:
    """Return the objects of all windows of an open prediction, in the order of the windows."""
    windows: Any = group[OBJECTS]
    numbers = sorted(int(name) for name in windows.group_keys())
    return [one for number in numbers for one in _objects_in(windows[str(number)])]


def _objects_in(window: Any) -> list[Detection]:
    places, scores, bits = (np.asarray(window[name][:]) for name in ("places", "scores", "masks"))
    found, start = [], 0
    for (number, top, left, bottom, right), score in zip(places.tolist(), scores.tolist(), strict=True):
        rows, columns = bottom - top, right - left
        end = start + -(-rows * columns // 8)
        mask = _unpacked(bits[start:end], rows, columns)
        found.append(Detection(number, score, top, left, mask))
        start = end
    return found


def _unpacked(bits: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(bool)


def has_objects(group: zarr.Group) -> bool:
    """Return whether a prediction has objects, also if it has none of them."""
    return OBJECTS in group
