"""Label images as OME-TIFF: tiled, compressed, with a pyramid, a pixel size, names and where they are from.

Open Microscopy Environment TIFF, https://docs.openmicroscopy.org/ome-model/; sub-resolutions are SubIFDs, as in
version 6 of the format, which QuPath, Fiji (Bio-Formats) and napari read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline.formats.image import Array, PixelSize

_TILE_PX = 512


def write_label_images(
    path: Path, images: dict[str, Array], *, pixel_size_um: PixelSize | None, annotations: dict[str, Any]
) -> None:
    """Write label images of one slide into one file, piece by piece.

    Parameters
    ----------
    path : Path
        Ends in ``.ome.tiff``.
    images : dict of (rows, columns) integer arrays
        By name; each becomes an image of the file, in this order.
    pixel_size_um : (row, column) or None
        Left out where it is not known.
    annotations : dict
        JSON types; kept as one map annotation per key.
    """
    largest_bytes = sum(2 * int(np.prod(image.shape)) * image.dtype.itemsize for image in images.values())
    with tifffile.TiffWriter(path, ome=True, bigtiff=largest_bytes > 2**31) as tiff:
        for name, image in images.items():
            metadata = {"axes": "YX", "Name": name} | _physical_size(pixel_size_um)
            if name == next(iter(images)):
                metadata["MapAnnotation"] = {
                    key: value if isinstance(value, str) else json.dumps(value) for key, value in annotations.items()
                }
            _write_pyramid(tiff, image, metadata, pixel_size_um)


def _write_pyramid(
    tiff: tifffile.TiffWriter, image: Array, metadata: dict[str, Any], pixel_size_um: PixelSize | None
) -> None:
    steps = _steps(image.shape)
    for step in steps:
        rows, columns = (-(-length // step) for length in image.shape)
        per_cm = None if pixel_size_um is None else (1e4 / step / pixel_size_um[1], 1e4 / step / pixel_size_um[0])
        tiff.write(
            _tiles(image, step),
            shape=(rows, columns),
            dtype=image.dtype,
            tile=(_TILE_PX, _TILE_PX),
            compression="zlib",
            photometric="minisblack",
            subifds=len(steps) - 1 if step == 1 else None,
            subfiletype=0 if step == 1 else 1,
            metadata=metadata if step == 1 else None,
            resolution=per_cm,
            resolutionunit=None if per_cm is None else "CENTIMETER",
        )


def _steps(shape: tuple[int, ...]) -> list[int]:
    """Return the down-sampling of each level: halved until both sides fit into a tile, and at least once."""
    steps = [1, 2] if max(shape) > 1 else [1]
    while max(shape) / steps[-1] > _TILE_PX:
        steps.append(2 * steps[-1])
    return steps


def _tiles(image: Array, step: int) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a level. It holds every ``step``-th pixel: labels are picked, never mixed."""
    side = _TILE_PX * step
    for top in range(0, image.shape[0], side):
        for left in range(0, image.shape[1], side):
            block = _pick(image, top, left, step)
            missing = [(0, _TILE_PX - length) for length in block.shape]
            yield np.ascontiguousarray(np.pad(block, missing))


def _pick(image: Array, top: int, left: int, step: int) -> NDArray[Any]:
    """Read every ``step``-th pixel of a square in strips of tile height, so that memory does not grow with the step."""
    side = _TILE_PX * step
    strips = [
        np.asarray(image[row : min(row + _TILE_PX, top + side), left : left + side])[::step, ::step]
        for row in range(top, min(top + side, image.shape[0]), max(_TILE_PX, step))
    ]
    return np.concatenate(strips)


def _physical_size(pixel_size_um: PixelSize | None) -> dict[str, Any]:
    if pixel_size_um is None:
        return {}
    rows_um, columns_um = pixel_size_um
    return {
        "PhysicalSizeY": rows_um,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeX": columns_um,
        "PhysicalSizeXUnit": "µm",
    }
