"""Write label images as OME-Zarr 0.5, a folder for napari, ome-zarr-py and viewers in a browser.

Specification: https://ngff.openmicroscopy.org/0.5/. The root is the class map, a label image with the colours of the
classes; object ids are a label image of it, below ``labels``. Every level picks every second row and column of the one
before, so pixel centres stay where they are, and a scale is all that the coordinates of a level need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.base.arrays import SQUARE_PX, Array, blocks
from pipeline.base.palette import class_rgb
from pipeline.slides.formats.image import PixelSize

_VERSION = "0.5"
_OPAQUE = 255


def write_label_zarr(
    folder: Path,
    classes: Sequence[Array],
    instances: Sequence[Array] | None,
    *,
    class_names: Sequence[str],
    pixel_size_um: PixelSize | None,
    annotations: Mapping[str, Any],
) -> None:
    """Write the images of a mask into a new folder, a chunk at a time.

    Parameters
    ----------
    folder : Path
        Must not exist.
    classes, instances : list of (rows, columns) integer arrays
        The levels of both images, each of half the size of the one before.
    class_names : list of str
        In the order of the labels, background first.
    pixel_size_um : (row, column) or None
        Without it, scales have no unit.
    annotations : mapping
        JSON types; written as the attribute ``slidemill`` of the root.
    """
    colours = [{"label-value": index, "rgba": [*class_rgb(index), _OPAQUE]} for index in range(1, len(class_names))]
    names = [{"label-value": index, "class": name} for index, name in enumerate(class_names)]
    shown = {"colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}, *colours], "properties": names}
    _write_image(folder, "classes", classes, shown, pixel_size_um, {"slidemill": dict(annotations)})
    if instances is not None:
        zarr.create_group(folder / "labels", attributes={"ome": {"version": _VERSION, "labels": ["instances"]}})
        of_classes = {"source": {"image": "../../"}}
        _write_image(folder / "labels" / "instances", "instances", instances, of_classes, pixel_size_um, {})


def _write_image(
    folder: Path,
    name: str,
    levels: Sequence[Array],
    shown: dict[str, Any],
    pixel_size_um: PixelSize | None,
    further: dict[str, Any],
) -> None:
    unit = {"unit": "micrometer"} if pixel_size_um else {}
    scales = [[2**index * size for size in pixel_size_um or (1.0, 1.0)] for index in range(len(levels))]
    datasets = [
        {"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for index, scale in enumerate(scales)
    ]
    axes = [{"name": axis, "type": "space", **unit} for axis in "yx"]
    multiscale = {"name": name, "axes": axes, "datasets": datasets, "type": "nearest"}
    ome = {"version": _VERSION, "multiscales": [multiscale], "image-label": {"version": _VERSION} | shown}
    group = zarr.create_group(folder, attributes={"ome": ome, **further})
    for index, level in enumerate(levels):
        copy_level(level, group, str(index))


def copy_level(level: Array, group: zarr.Group, name: str) -> None:
    """Write an array into a group, a chunk at a time."""
    rows, columns = level.shape
    by_version: dict[str, Any] = {"dimension_names": ("y", "x")}
    if group.metadata.zarr_format == 2:
        by_version = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}  # as OME-Zarr 0.4 wants it
    written = group.create_array(
        name,
        shape=level.shape,
        chunks=(min(SQUARE_PX[0], rows), min(SQUARE_PX[1], columns)),
        dtype=level.dtype,
        fill_value=0,
        **by_version,
    )
    for region in blocks(level.shape):
        written[region] = np.asarray(level[region])
