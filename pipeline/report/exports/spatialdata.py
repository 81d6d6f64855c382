"""Masks and objects of several samples for spatialdata: a Zarr store with a label image for each and a table of all.

Its format is that of spatialdata 0.7 (https://spatialdata.scverse.org/en/stable/design_doc.html): labels as OME-Zarr
0.5, the table as AnnData, whose column ``region`` names the label image of an object, and ``id`` its number in it. Zarr
writes it, since spatialdata needs other versions of dask and pandas than Slidemill.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zarr

from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, spreadsheet_text
from pipeline.masks.mask_file import open_mask
from pipeline.masks.ome_zarr import copy_level
from pipeline.report.exports.anndata import REGION, write_observations
from pipeline.report.exports.ome_zarr import levels_of
from pipeline.report.exports.selection import Selection, refuse_stacks
from pipeline.report.exports.tables import gathered
from pipeline.settings.schema import ImageConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.slide import open_slide

_CONTAINER, _LABELS, _TABLE = "0.2", "0.3", "0.2"  # versions of the formats of spatialdata
_OME_ZARR = "0.5-dev-spatialdata"  # as spatialdata calls it, for its transformations
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")


def write_spatialdata(output: Path, chosen: Selection) -> None:
    """Write the object ids of each mask with all their levels, and a table of the objects.

    The label images are in px in the coordinate system ``global``, and in µm in one named like the image.

    Raises
    ------
    SlidemillError
        If masks are stacks, or have no object ids.
    """
    refuse_stacks(chosen, "spatialdata")
    names = names_of([one.sample for one in chosen.outcomes])
    with replacing(output) as temporary:
        root = zarr.create_group(temporary, attributes={"spatialdata_attrs": {"version": _CONTAINER}})
        labels = root.create_group("labels", attributes={"ome": {"labels": list(names.values())}})
        for outcome in chosen.outcomes:
            mask = Path(str(outcome.mask))
            _write_labels(labels, names[outcome.sample], mask, memory_mb=chosen.settings.tiling.memory_mb)
        if any(one.found["objects"]["objects"] for one in chosen.outcomes):
            table = root.create_group("tables").create_group("objects")
            by_cell = {spreadsheet_text(sample): name for sample, name in names.items()}
            _write_table(table, gathered(temporary, chosen), chosen, by_cell)


def names_of(samples: Iterable[str]) -> dict[str, str]:
    """Return the names of label images: those of samples, in the letters that spatialdata allows; no two are equal."""
    names: dict[str, str] = {}
    for sample in samples:
        name = _NOT_IN_NAMES.sub("_", sample).lstrip("_.") or "sample"
        taken, number, first = {other.lower() for other in names.values()}, 1, name
        while name.lower() in taken:
            number += 1
            name = f"{first}_{number}"
        names[sample] = name
    return names


def _write_labels(parent: Any, name: str, mask: Path, *, memory_mb: int) -> None:
    with open_mask(mask, memory_mb=memory_mb) as images:
        if images.instances is None:
            raise SlidemillError(
                f"--to spatialdata: {mask} has no object ids (masks.instances: none); choose another masks.instances"
            )
    with open_slide(mask, memory_mb=memory_mb, view=ImageConfig(series="instances")) as slide:
        levels = levels_of(slide)
        group = parent.create_group(name, attributes=_about(name, len(levels), slide.pixel_size_um))
        for index, level in enumerate(levels):
            copy_level(level, group, f"s{index}")


def _about(name: str, levels: int, pixel_size_um: PixelSize | None) -> dict[str, Any]:
    """Return the attributes of a label image."""
    datasets = [
        {"path": f"s{index}", "coordinateTransformations": [{"type": "scale", "scale": [float(2**index)] * 2}]}
        for index in range(levels)
    ]
    places = [{"type": "identity", **_between("global", "unit")}]
    if pixel_size_um:
        places.append({"type": "scale", "scale": list(pixel_size_um), **_between(name, "micrometer")})
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    image = {"name": name, "axes": axes, "datasets": datasets, "coordinateTransformations": places}
    ome = {"version": _OME_ZARR, "multiscales": [image], "image-label": {"version": _OME_ZARR}}
    return {"ome": ome, "spatialdata_attrs": {"version": _LABELS}}


def _between(system: str, unit: str) -> dict[str, Any]:
    """Return the ends of a transformation, from pixels to a coordinate system."""
    axes = {kind: [{"name": axis, "type": "space", "unit": kind} for axis in "yx"] for kind in ("unit", unit)}
    return {"input": {"name": "yx", "axes": axes["unit"]}, "output": {"name": system, "axes": axes[unit]}}


def _write_table(group: Any, table: Path, chosen: Selection, names: dict[str, str]) -> None:
    keys = {"region_key": REGION, "instance_key": "id"}
    regions = write_observations(group, table, chosen, regions=names, uns=keys)
    kind = {"spatialdata-encoding-type": "ngff:regions_table", "version": _TABLE}
    group.attrs.update({**kind, "region": regions, **keys})
