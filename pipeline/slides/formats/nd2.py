"""Read Nikon ND2 with the package nd2: positions are series, planes are decoded one by one."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import nd2
import numpy as np
from numpy.typing import NDArray

from pipeline.slides.formats.frames import array_of_frames
from pipeline.slides.formats.image import Image, Series, pixel_size, z_step


def open_nd2(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the positions of an ND2 file."""
    file = stack.enter_context(nd2.ND2File(path))
    return [
        Series(name=f"position {position}", open=partial(_image, file, position, budget_bytes))
        for position in range(file.sizes.get("P", 1))
    ]


def _image(file: nd2.ND2File, position: int, budget_bytes: int) -> Image:
    loops = [axis for axis in file.sizes if axis not in "CYXS"]
    plane_axes = "".join(axis for axis in "CYXS" if axis in file.sizes)  # a frame holds all channels
    axes = "".join(axis for axis in loops if axis != "P") + plane_axes

    def read(index: tuple[int, ...]) -> NDArray[np.generic]:
        at = dict(zip([axis for axis in loops if axis != "P"], index, strict=True)) | {"P": position}
        lengths = tuple(file.sizes[axis] for axis in loops)
        number = int(np.ravel_multi_index(tuple(at[axis] for axis in loops), lengths)) if loops else 0
        frame = np.asarray(file.read_frame(number))
        return frame.reshape(tuple(file.sizes[axis] for axis in plane_axes))

    size = file.voxel_size()
    return Image(
        levels=(
            array_of_frames(
                tuple(file.sizes[axis] for axis in axes),
                np.dtype(file.dtype),
                read,
                frame_axes=len(plane_axes),
                budget_bytes=budget_bytes,
            ),
        ),
        axes=axes,
        pixel_size_um=pixel_size(size.y, size.x),
        z_step_um=z_step(size.z),
        channel_names=tuple(channel.channel.name for channel in file.metadata.channels or ()),
    )
