"""Write the results of samples for other programs: tables, AnnData, COCO, spatialdata, masks as OME-Zarr."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.report.exports.selection import select

log = logging.getLogger(__name__)

_IN_SLIDES = "slide-labels"
_TARGETS = {
    "csv": "pipeline.report.exports.tables:write_csv",
    "parquet": "pipeline.report.exports.tables:write_parquet",
    "anndata": "pipeline.report.exports.anndata:write_anndata",
    "coco": "pipeline.report.exports.coco:write_coco",
    "spatialdata": "pipeline.report.exports.spatialdata:write_spatialdata",
    _IN_SLIDES: "pipeline.report.exports.slide_labels:write_slide_labels",
    "ome-zarr": "pipeline.report.exports.ome_zarr:write_masks",
}


def run(samples: list[str], *, to: str, output: Path, model: str = "") -> None:
    """Write the objects of the samples that are done into one file; with ome-zarr, their masks into one folder.

    Parameters
    ----------
    samples : list of str
        Samples, or folders of the drop folder; without any, all that are done.
    to : str
        What to write: csv, parquet (extra parquet), anndata (.h5ad, extra anndata), coco (JSON), spatialdata (Zarr),
        ome-zarr, or slide-labels: the objects as a label image inside of slides that are OME-Zarr.
    output : Path
        File to write, or folder with spatialdata and ome-zarr; with slide-labels the name of the label image. It must
        not exist.
    model : str
        Network whose results are written; needed if there are several.
    """
    if to not in _TARGETS:
        raise SlidemillError(f"--to {to}: unknown; choose one of {', '.join(_TARGETS)}")
    if to != _IN_SLIDES and output.exists():
        raise SlidemillError(f"{output}: already exists; remove it or choose another name")
    module, function = _TARGETS[to].split(":")
    chosen = select(samples, model)
    getattr(import_module(module), function)(output, chosen)
    log.info("%s: %d samples", output, len(chosen.outcomes))
