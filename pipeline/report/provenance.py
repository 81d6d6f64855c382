"""The content of results/provenance.json: settings, versions and command of the run.

For every mask, the SHA-256 of its file, its slide and its network, and the device it was computed on.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.base import files, paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, sha256
from pipeline.project.drop_folder import command_of_run
from pipeline.report.outcome import Outcome
from pipeline.settings.schema import Settings
from pipeline.tiling.plan import read_plan

_PACKAGES = (
    *("torch", "monai", "lightning", "numpy", "scipy", "scikit-image"),
    *("tifffile", "imagecodecs", "zarr", "dask", "snakemake"),
)


def collect_origin(found: list[Outcome], settings: Settings) -> dict[str, Any]:
    """Return the provenance of all masks, as JSON types; docs/contracts.md describes the keys."""
    masks = {str(outcome.mask): sha256(outcome.mask) for outcome in found if outcome.mask}
    batches = {_batch(outcome) for outcome in found if outcome.mask}
    devices = {batch: _device(Path(paths.SPEED.format(model=batch[0], batch=batch[1]))) for batch in batches}
    return files.provenance("report", settings, **masks) | {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
        "command": command_of_run(),
        "samples": [_sources(outcome) | devices[_batch(outcome)] for outcome in found if outcome.mask],
    }


def _batch(outcome: Outcome) -> tuple[str, str]:
    return outcome.model, outcome.batch


def _sources(outcome: Outcome) -> dict[str, Any]:
    """Return the sources of one mask; None where a failed job left no plan."""
    try:
        plan = read_plan(Path(paths.PLAN.format(model=outcome.model, sample=outcome.sample))).slide
    except SlidemillError:
        plan = None
    return {
        "sample": outcome.sample,
        "model": outcome.model,
        "slide": str(outcome.slide),
        "slide_sha256": plan.slide_sha256 if plan else None,
        "mask": str(outcome.mask),
    }


def _device(speed: Path) -> dict[str, Any]:
    """Return network, device and precision of a batch."""
    try:
        content = read_json(speed)
        weights = content["provenance"]["sha256"]["weights"]
        return {"weights_sha256": weights} | {name: content[name] for name in ("device", "precision")}
    except (SlidemillError, KeyError):
        return {"weights_sha256": None, "device": None, "precision": None}
