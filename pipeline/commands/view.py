"""Open a slide and its mask in napari, with class names, colours and pixel size."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask.array
import tifffile
import zarr

from pipeline.base.errors import SlidemillError
from pipeline.base.palette import class_rgb
from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import Slide, open_slide


def run(*, slide: Path, mask: Path, memory_mb: int = 4000, config: ImageConfig | None = None) -> None:
    """Show a slide with the classes and objects of its mask until the window is closed.

    Needs the extra ``viewer``: ``pip install 'slidemill[viewer]'``.

    Parameters
    ----------
    slide : Path
        Slide to show.
    mask : Path
        Mask of the slide (OME-TIFF).
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : ImageConfig, optional
        Section ``image``, as JSON, that the mask was made with; without it, the slide is shown as it is.
    """
    try:
        import napari  # noqa: PLC0415
    except ImportError as error:
        raise SlidemillError("napari is not installed; pip install 'slidemill[viewer]'") from error
    with ExitStack() as stack:
        image = stack.enter_context(open_slide(slide, memory_mb=memory_mb, view=config))
        labels = stack.enter_context(open_slide(mask, memory_mb=memory_mb))
        file = stack.enter_context(tifffile.TiffFile(mask))
        fill(napari.Viewer(title=slide.name), image, labels, file)
        napari.run()


def fill(viewer: Any, image: Slide, labels: Slide, file: tifffile.TiffFile) -> None:
    """Add the slide, its classes in their colours, and its objects (hidden) to a napari viewer, all of it lazily."""
    unit = "um" if labels.pixel_size_um else "pixel"
    place: dict[str, Any] = {"scale": labels.pixel_size_um or (1.0, 1.0), "units": (unit, unit), "multiscale": True}
    colour = image.channels == 3 and image.levels[0].dtype == "uint8"
    levels = [_lazy(level) for level in image.levels]  # each (channels, rows, columns)
    if colour:
        levels = [level.transpose(1, 2, 0) for level in levels]
    layout = {"rgb": True} if colour else {"channel_axis": 0}
    viewer.add_image(levels, name=image.path.name, **place, **layout)
    for number, series in enumerate(file.series):
        levels = [_lazy(zarr.open(series.aszarr(level=index), mode="r")) for index in range(len(series.levels))]
        layer = viewer.add_labels(levels, name=series.name, visible=number == 0, **place)
        if number == 0:
            colours = {index: (*(part / 255 for part in class_rgb(index)), 1.0) for index in range(1, 256)}
            layer.colormap = {None: "transparent", 0: "transparent"} | colours


def _lazy(array: Any) -> Any:
    return dask.array.from_array(array, name=False)  # type: ignore[no-untyped-call]
