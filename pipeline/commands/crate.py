"""Describe a finished project as an RO-Crate for archives (https://w3id.org/ro/crate)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, write_json
from pipeline.project.stage_settings import network_file
from pipeline.settings.schema import parse_settings

_TABLES = {
    paths.PAGE: "The page to review the samples on",
    paths.METRICS_TABLE: "A row per sample and network: state and main metrics",
    paths.ALL_METRICS: "A row per sample and network: all metrics",
    paths.SUMMARY: "A row per sample, network and class: count, area, share, density",
    paths.ALL_OBJECTS: "A row per object of all samples",
    paths.ALL_REGIONS: "A row per region, network and class: area, count, density, means of measurements",
    paths.COLUMNS: "The meaning and unit of every column of these tables",
    paths.PROVENANCE: "Settings, versions and SHA-256 behind every mask",
}


def run(*, provenance: Path = Path(paths.PROVENANCE), output: Path = Path("ro-crate-metadata.json")) -> None:
    """Write the metadata of the project in the current folder, with all samples that are done; no file is copied.

    Parameters
    ----------
    provenance : Path
        Provenance that a run wrote.
    output : Path
        Metadata file to write.
    """
    try:
        new_crate: Any = import_module("rocrate.rocrate").ROCrate
    except ModuleNotFoundError as error:
        raise SlidemillError("the package rocrate is not installed; pip install 'slidemill[crate]'") from error
    if not provenance.is_file():
        raise SlidemillError(f"{provenance}: not found; a run writes it")
    content = read_json(provenance)
    crate = new_crate()
    crate.name = "Segmentation of microscopy slides"
    crate.description = f"Slides, label images and their measurements, by Slidemill {content['version']}"
    properties = {"@type": "SoftwareApplication", "name": "Slidemill", "softwareVersion": content["version"]}
    software = crate.add_jsonld({"@id": "#slidemill"} | properties)
    for path, description in _TABLES.items():
        crate.add_file(dest_path=path, properties={"description": description})
    settings = parse_settings(content["config"], source=str(provenance))
    for sample in content["samples"]:
        if sample["status"] != "done":
            continue
        network = _file(crate, network_file(settings, sample["model"]), sample["weights_sha256"], "Network")
        slide = _file(crate, sample["slide"], sample["slide_sha256"], "Slide")
        mask = _file(crate, sample["mask"], content["sha256"][sample["mask"]], "Label image")
        about = {
            "name": f"Segmentation of {sample['sample']} by {sample['model']}",
            "description": f"{sample['precision']} on {sample['device']}",
        }
        crate.add_action(software, object=[slide, network], result=[mask], properties=about)
    write_json(output, crate.metadata.generate())


def _file(crate: Any, path: str, sha256: str | None, description: str) -> Any:
    """Return the entity of a file; a file that is added again keeps its entity."""
    return crate.add_file(dest_path=path, properties={"description": description, "sha256": sha256})
