"""What a run finds in a folder of files that are never opened."""

from __future__ import annotations

from pathlib import Path

from pipeline.project.jobs.run import Run
from pipeline.settings.schema import parse_settings
from tests.support.networks import CLASSES


def find_run(folder: Path, *, batches: int, samples: int, **settings: object) -> Run:
    """Find a run of plates with references, and a network that was brought along; no file is an image."""
    for batch in range(batches):
        for sample in range(samples):
            for kind in ("slides", "references"):
                path = folder / "data" / kind / f"plate{batch}" / f"{sample}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"." * 60_000)
    (folder / "x").write_bytes(b"")
    (folder / "model.json").write_bytes(b"")
    known = {"settle_s": 0, "classes": CLASSES, "models": {"unet": {"checkpoint": "x"}}}
    return Run.find(parse_settings(known | settings, source=""), is_main=True, on_cluster=False, waits=False)
