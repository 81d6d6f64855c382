"""Write label images as OME-TIFF: tiled, compressed, with a pyramid, pixel size, names and provenance.

Open Microscopy Environment TIFF, https://docs.openmicroscopy.org/ome-model/; sub-resolutions are SubIFDs, as in
version 6 of the format, which QuPath, Fiji (Bio-Formats) and napari read.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from models.base.geometry import round_up
from pipeline.base.arrays import STRIP_PX, Array, WritableArray, bands, blocks
from pipeline.base.errors import SlideError
from pipeline.base.files import NAMESPACE
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array
from pipeline.slides.formats.image import PixelSize

_TILE_PX = STRIP_PX[0]
_COMPRESSION = tifffile.COMPRESSION.ADOBE_DEFLATE
_JSON = ("config", "sha256")  # annotations of a mask that are written as JSON


def write_label_images(
    path: Path,
    images: dict[str, Array],
    *,
    axes: str = "YX",
    pixel_size_um: PixelSize | None,
    z_step_um: float | None = None,
    annotations: dict[str, Any],
) -> None:
    """Write label images of one slide into one file, piece by piece.

    Parameters
    ----------
    path : Path
        Ends in ``.ome.tiff``.
    images : dict of (rows, columns) integer arrays
        By name; each becomes an image of the file, in this order. Stacks have axes before these.
    axes : str
        The letters of their axes: T, Z or both may be before Y and X.
    pixel_size_um : (row, column) or None
        None: not known, and not written.
    z_step_um : float or None
        Distance between the planes of a stack; None: not known, and not written.
    annotations : dict
        JSON types; written as one map annotation per key. The same images and annotations give the same bytes, UUID
        included.
    """
    largest_bytes = sum(2 * int(np.prod(image.shape)) * image.dtype.itemsize for image in images.values())
    shapes = {name: image.shape for name, image in images.items()}
    of_the_file = {
        "MapAnnotation": {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in annotations.items()
        },
        "UUID": str(uuid.uuid5(NAMESPACE, json.dumps([annotations, shapes, pixel_size_um]))),
    }
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as scratch,
        tifffile.TiffWriter(path, ome=True, bigtiff=largest_bytes > 2**31) as tiff,
    ):
        for name, image in images.items():
            metadata = {"axes": axes, "Name": name} | _physical_size(pixel_size_um, z_step_um) | of_the_file
            of_the_file = {}  # written with the first image only
            _write_pyramid(tiff, image, metadata, pixel_size_um, Path(scratch) / name)


def read_annotations(path: Path) -> dict[str, Any]:
    """Return the annotations that :func:`write_label_images` wrote, JSON parsed.

    Raises
    ------
    SlideError
        If the file has none, or they are incomplete.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata or "")
    except Exception as error:  # tifffile raises anything
        raise SlideError(f"{path}: has no OME-XML: {error}; choose a mask that the stage stitch wrote") from error
    found = {str(pair.get("K")): pair.text or "" for pair in root.iterfind(".//{*}MapAnnotation/{*}Value/{*}M")}
    if missing := {"sample", "classes", *_JSON} - set(found):
        raise SlideError(f"{path}: its OME-XML has no {min(missing)!r}; choose a mask that the stage stitch wrote")
    return found | {key: json.loads(found[key]) for key in _JSON}


def _write_pyramid(
    tiff: tifffile.TiffWriter, image: Array, metadata: dict[str, Any], pixel_size_um: PixelSize | None, scratch: Path
) -> None:
    """Write the levels of an image, each from the one before, which is read once."""
    *planes, _, _ = image.shape
    steps = _steps(image.shape[-2:])
    for index, step in enumerate(steps):
        per_cm = None if pixel_size_um is None else (1e4 / step / pixel_size_um[1], 1e4 / step / pixel_size_um[0])
        half = tuple(-(-length // 2) for length in image.shape[-2:])
        below = None
        if step != steps[-1]:  # every second pixel, in chunks that half a row of tiles fills
            chunks = (*(1 for _ in planes), _TILE_PX // 2, _TILE_PX)
            below = scratch_array(scratch / f"{step}", (*planes, *half), image.dtype, chunks=chunks)
        with closing(_compressed_tiles(image, below)) as tiles:
            tiff.write(
                tiles,
                shape=image.shape,
                dtype=image.dtype,
                tile=_tile_px(image.shape[-2:]),
                compression=_COMPRESSION,
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


def _tile_px(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of a tile: multiples of 16 (TIFF 6.0), no more than a small image needs."""
    if max(shape) > _TILE_PX:
        return _TILE_PX, _TILE_PX
    rows, columns = (round_up(length, 16) for length in shape)
    return rows, columns


def _compressed_tiles(image: Array, below: WritableArray | None) -> Generator[bytes, None, None]:
    """Yield the tiles of a level, compressed in threads, and write every second pixel into the level below."""
    *planes, rows, columns = image.shape
    regions = ((*plane, *region) for plane in np.ndindex(*planes) for region in blocks((rows, columns), STRIP_PX))
    for tiles in in_order(partial(_compress, image, region, below) for region in regions):
        yield from tiles


def _compress(image: Array, region: tuple[int | slice, ...], below: WritableArray | None) -> list[bytes]:
    """Return the tiles of a block of one row of tiles. Labels are picked for the level below, never mixed."""
    block = np.asarray(image[region])
    if below is not None:
        half = (slice(side.start // 2, -(-side.stop // 2)) if isinstance(side, slice) else side for side in region)
        below[tuple(half)] = block[::2, ::2]
    tile_px = _tile_px(image.shape[-2:])
    missing = [(0, -length % side) for length, side in zip(block.shape, tile_px, strict=True)]
    whole = np.pad(block, missing) if any(np.ravel(missing)) else block
    encode = tifffile.TIFF.COMPRESSORS[_COMPRESSION]
    tiles = (np.ascontiguousarray(whole[:, columns]) for columns in bands(whole.shape[1], tile_px[1]))
    return [encode(tile) for tile in tiles]


def _physical_size(pixel_size_um: PixelSize | None, z_step_um: float | None) -> dict[str, Any]:
    sizes = dict(zip("YX", pixel_size_um or (), strict=False)) | ({"Z": z_step_um} if z_step_um else {})
    units = dict.fromkeys((f"PhysicalSize{axis}Unit" for axis in sizes), "µm")
    return {f"PhysicalSize{axis}": size for axis, size in sizes.items()} | units
