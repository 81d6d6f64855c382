"""The content of results/provenance.json: settings, versions and command of the run.

For every sample, its state, the SHA-256 of its mask, its slide and its network, and the device it was computed on.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from pipeline.base import files
from pipeline.project.drop.drop_folder import last_run
from pipeline.report.outcome import Outcome
from pipeline.settings.schema import Settings

_PACKAGES = (
    *("torch", "monai", "lightning", "numpy", "scipy", "scikit-image"),
    *("tifffile", "imagecodecs", "zarr", "dask", "snakemake"),
)


def collect_origin(found: list[Outcome], settings: Settings) -> dict[str, Any]:
    """Return the provenance of all masks, as JSON types; docs/contracts.md describes the keys."""
    masks = {outcome.mask: outcome.found["stitch"]["mask_sha256"] for outcome in found if outcome.mask}
    last = last_run()
    return files.provenance("report", settings, **masks) | {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
        "command": last.command,
        "run": last.report,
        "samples": [_sources(outcome) for outcome in found],
    }


def _sources(outcome: Outcome) -> dict[str, Any]:
    """Return the sources of one mask; None where a stage is not done."""
    predicted = outcome.found.get("predict", {})
    return {
        "sample": outcome.sample,
        "model": outcome.model,
        "status": outcome.status,
        "slide": outcome.slide,
        "slide_sha256": outcome.found.get("tile", {}).get("slide_sha256"),
        "mask": outcome.mask,
    } | {name: predicted.get(name) for name in ("weights_sha256", "device", "precision")}
