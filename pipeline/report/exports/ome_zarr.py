"""Masks as OME-Zarr labels, for viewers that read chunks, also from a server."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.arrays import Array
from pipeline.base.files import replacing
from pipeline.masks.mask_file import open_mask
from pipeline.masks.ome_tiff import read_annotations
from pipeline.masks.ome_zarr import write_label_zarr
from pipeline.report.exports.selection import Selection, refuse_stacks
from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import Slide, open_slide


def write_masks(output: Path, chosen: Selection) -> None:
    """Write the mask of each sample with all its levels as OME-Zarr 0.5, a folder ``SAMPLE.ome.zarr`` each."""
    refuse_stacks(chosen, "ome-zarr")
    with replacing(output) as temporary:
        for outcome in chosen.outcomes:
            folder = temporary / f"{outcome.sample}.ome.zarr"
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_mask(folder, Path(str(outcome.mask)), memory_mb=chosen.settings.tiling.memory_mb)


def write_mask(folder: Path, mask: Path, *, memory_mb: int) -> None:
    """Write a mask of the stage stitch into a new folder; ``memory_mb`` is the largest piece of it to hold."""
    with open_mask(mask, memory_mb=memory_mb) as images:
        has_objects = images.instances is not None
    about = read_annotations(mask)
    classes, instances = (ImageConfig(series=name) for name in ("classes", "instances"))
    with (
        open_slide(mask, memory_mb=memory_mb, view=classes) as of_classes,
        open_slide(mask, memory_mb=memory_mb, view=instances if has_objects else classes) as of_objects,
    ):
        write_label_zarr(
            folder,
            levels_of(of_classes),
            levels_of(of_objects) if has_objects else None,
            class_names=str(about["classes"]).split(", "),
            pixel_size_um=of_classes.pixel_size_um,
            annotations=about,
        )


def levels_of(slide: Slide) -> list[Array]:
    """Return the first channel of all levels of a slide, the finest first."""
    return [slide.plane(level) for level in range(len(slide.levels))]
