"""Write a mask as OME-Zarr labels, for viewers that read chunks, also from a server."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.base.arrays import Array
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing
from pipeline.masks.mask_file import open_mask
from pipeline.masks.ome_tiff import read_annotations
from pipeline.masks.ome_zarr import write_label_zarr
from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import Slide, open_slide

log = logging.getLogger(__name__)


def run(*, mask: Path, output: Path, memory_mb: int = 4000) -> None:
    """Write a mask with all its levels as OME-Zarr 0.5.

    Parameters
    ----------
    mask : Path
        Mask of the stage stitch (OME-TIFF).
    output : Path
        Folder to write.
    memory_mb : int
        Largest piece of the mask to hold, in MB.
    """
    if output.exists():
        raise SlidemillError(f"{output}: already exists; remove it or choose another name")
    with open_mask(mask, memory_mb=memory_mb) as images:
        has_objects = images.instances is not None
    about = read_annotations(mask)
    classes, instances = (ImageConfig(series=name) for name in ("classes", "instances"))
    with (
        open_slide(mask, memory_mb=memory_mb, view=classes) as of_classes,
        open_slide(mask, memory_mb=memory_mb, view=instances if has_objects else classes) as of_objects,
        replacing(output) as temporary,
    ):
        write_label_zarr(
            temporary,
            _levels(of_classes),
            _levels(of_objects) if has_objects else None,
            class_names=str(about["classes"]).split(", "),
            pixel_size_um=of_classes.pixel_size_um,
            annotations=about,
        )
    log.info("%s: %s px in %d levels", output, of_classes.shape, len(of_classes.levels))


def _levels(slide: Slide) -> list[Array]:
    return [slide.plane(level) for level in range(len(slide.levels))]
