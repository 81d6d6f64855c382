"""Label images as OME-TIFF: tiled, compressed, with a pyramid, a pixel size, names and where they are from.

Open Microscopy Environment TIFF, https://docs.openmicroscopy.org/ome-model/; sub-resolutions are SubIFDs, as in
version 6 of the format, which QuPath, Fiji (Bio-Formats) and napari read.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError
from pipeline.runtime.scratch import scratch_array
from pipeline.slides.formats.image import PixelSize

_TILE_PX = 512
_BLOCK_COLUMNS = 16 * _TILE_PX  # of a row of tiles, read together
_JSON = ("config", "sha256")  # annotations of a mask that are no text
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/slidemill/slidemill")


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
        JSON types; kept as one map annotation per key. Where the file is from: the same content with the same
        annotations gives the same bytes, UUID included.
    """
    largest_bytes = sum(2 * int(np.prod(image.shape)) * image.dtype.itemsize for image in images.values())
    shapes = {name: image.shape for name, image in images.items()}
    of_the_file = {
        "MapAnnotation": {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in annotations.items()
        },
        "UUID": str(uuid.uuid5(_NAMESPACE, json.dumps([annotations, shapes, pixel_size_um]))),
    }
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as scratch,
        tifffile.TiffWriter(path, ome=True, bigtiff=largest_bytes > 2**31) as tiff,
    ):
        for name, image in images.items():
            metadata = {"axes": "YX", "Name": name} | _physical_size(pixel_size_um) | of_the_file
            of_the_file = {}  # it stands with the first image
            _write_pyramid(tiff, image, metadata, pixel_size_um, Path(scratch) / name)


def read_annotations(path: Path) -> dict[str, Any]:
    """Return the annotations that :func:`write_label_images` wrote; what was JSON is parsed again.

    Raises
    ------
    SlideError
        If the file does not have them.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata or "")
    except Exception as error:  # tifffile raises anything
        raise SlideError(f"{path}: has no description as OME-XML: {error}; name a mask") from error
    found = {str(pair.get("K")): pair.text or "" for pair in root.iterfind(".//{*}MapAnnotation/{*}Value/{*}M")}
    if missing := {"sample", "classes", *_JSON} - set(found):
        raise SlideError(f"{path}: its description has no {min(missing)!r}; name a mask that the stage stitch wrote")
    return found | {key: json.loads(found[key]) for key in _JSON}


def _write_pyramid(
    tiff: tifffile.TiffWriter, image: Array, metadata: dict[str, Any], pixel_size_um: PixelSize | None, scratch: Path
) -> None:
    """Write the levels of an image, each from the one before, which is read once."""
    steps = _steps(image.shape)
    for index, step in enumerate(steps):
        per_cm = None if pixel_size_um is None else (1e4 / step / pixel_size_um[1], 1e4 / step / pixel_size_um[0])
        below = _room_for_half(image, scratch / f"{step}") if step != steps[-1] else None
        tiff.write(
            _tiles(image, below),
            shape=image.shape,
            dtype=image.dtype,
            tile=(_TILE_PX, _TILE_PX),
            compression="zlib",
            maxworkers=1,
            photometric="minisblack",
            subifds=len(steps) - 1 if index == 0 else None,
            subfiletype=0 if index == 0 else 1,
            metadata=metadata if index == 0 else None,
            resolution=per_cm,
            resolutionunit=None if per_cm is None else "CENTIMETER",
        )
        if below is not None:
            image = below


def _steps(shape: tuple[int, ...]) -> list[int]:
    """Return the down-sampling of each level: halved until both sides fit into a tile, and at least once."""
    steps = [1, 2] if max(shape) > 1 else [1]
    while max(shape) / steps[-1] > _TILE_PX:
        steps.append(2 * steps[-1])
    return steps


def _room_for_half(image: Array, path: Path) -> zarr.Array[Any]:
    """Return a scratch array for every second pixel of an image, in chunks of what half a tile row gives."""
    shape = tuple(-(-length // 2) for length in image.shape)
    return scratch_array(path, shape, image.dtype, chunks=(_TILE_PX // 2, _TILE_PX))


def _tiles(image: Array, below: zarr.Array[Any] | None) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a level; on the way, put every second pixel into the next: labels are picked, never mixed."""
    rows, columns = image.shape
    for top in range(0, rows, _TILE_PX):
        for left in range(0, columns, _BLOCK_COLUMNS):
            region = slice(top, min(top + _TILE_PX, rows)), slice(left, min(left + _BLOCK_COLUMNS, columns))
            block = np.asarray(image[region])
            if below is not None:
                below[tuple(slice(side.start // 2, -(-side.stop // 2)) for side in region)] = block[::2, ::2]
            for start in range(0, block.shape[1], _TILE_PX):
                yield block[:, start : start + _TILE_PX]  # tifffile fills up those at the edges


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
