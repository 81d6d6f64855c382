"""Measure the stage stitch: ``python -m tests.benchmarks.stitch``; one JSON line per figure.

The prediction is made of the annotated nuclei that the package stardist carries, mirrored to size, with probabilities
that fall off over the borders. Every figure is taken in a process of its own.

stitch: seconds (wall, processor) and megapixels per second of the stage without imports, on 8,192 x 8,192 px, for each
kind of objects.
stitch_memory: peak memory for slides of 2,048 columns and 10,000, 40,000 and 100,000 rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter

from pipeline.base import paths
from pipeline.base.files import write_json
from pipeline.prediction.store import write_prediction
from pipeline.tiling.grid import Grid
from tests.benchmarks.common import THREADS, fresh_folder, say
from tests.benchmarks.weight_map import demo_images
from tests.support.jobs import Jobs
from tests.support.paths import ROOT
from tests.support.prediction import plan_of

_TILE_PX = (1056, 2048)  # what 4 GB allow a U-Net of width 32 on 8,192 x 8,192 px
_SAMPLE, _CLASSES = "slide", ["background", "nucleus"]
_KINDS = {
    "components": {"instances": "components"},
    "watershed": {"instances": "watershed"},
    "distance": {"instances": "distance"},
    "partition": {"instances": "partition"},
    "cleaned": {"instances": "components", "min_object_um2": 10.0, "max_hole_um2": 10.0},
}


# Run the job on what `_make` wrote, without what only this benchmark imports; print seconds and memory of its worker.
_MEASURED = """
import resource, sys, time
import pipeline.stages.stitch
from pipeline.__main__ import main
start = time.perf_counter()
code = main(sys.argv[1:])
wall_s = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)
sys.exit(code)
"""


def main(side: int = 8192, *rows: int) -> None:
    """Print every figure."""
    for kind in _KINDS:
        say("stitch", kind=kind, side_px=side, **_in_a_process(kind, side, side))
    for count in rows or (10_000, 40_000, 100_000):
        say("stitch_memory", rows=count, **_in_a_process("components", count, 2048))


def _in_a_process(kind: str, rows: int, columns: int) -> dict[str, float]:
    with fresh_folder():
        jobs = Jobs(threads=THREADS, classes=_CLASSES, masks=_KINDS[kind])
        _make(jobs, rows, columns, jobs.settings.masks.needs)
        words = [sys.executable, "-c", _MEASURED, *jobs.command("stitch")]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        wall_s, cpu_s, peak_mb = map(float, done.stdout.splitlines()[-1].split())
        file_mb = jobs.mask(_SAMPLE).stat().st_size / 1e6
    measured = {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb, "file_mb": file_mb}
    return measured | {"megapixels_per_s": rows * columns / 1e6 / wall_s}


def _make(jobs: Jobs, rows: int, columns: int, kept: set[str]) -> None:
    """Write plan and prediction of a slide that itself is not there."""
    patch, distance = _probabilities()
    grid = Grid(shape=(rows, columns), tile=_TILE_PX, halo_px=96, surround_px=96, stride_px=16)
    jobs.put(_SAMPLE, Path("slide.tif"))
    jobs.record("predict", weights_sha256="0")
    write_json(jobs.path(paths.PLAN, _SAMPLE), plan_of(grid, pixel_size_um=(0.5, 0.5)).to_dict())
    path = jobs.path(paths.PREDICTION, _SAMPLE)
    heads = ["distance"] if "heads" in kept else []
    about = {"num_classes": 2, "probabilities": "probabilities" in kept, "heads": heads, "identity": "a"}
    with write_prediction(path, grid, **about) as writer:
        for tile in grid.tiles():
            height, width = tile.write.shape
            part = patch[:height, :width]
            both = np.stack([1 - part, part]).astype(np.float16) if "probabilities" in kept else None
            deep = distance[None, :height, :width] if heads else None
            writer.write(tile.write, (part > 0.5).astype(np.uint8), both, deep)


def _probabilities() -> tuple[np.ndarray, np.ndarray]:
    """Return one tile of foreground probabilities, and of the distance to the border of each nucleus, 255 for 1."""
    _, labels = demo_images()
    soft = gaussian_filter((labels > 0).astype(np.float32), 1)
    distance = np.zeros(labels.shape)
    for number, box in enumerate(find_objects(labels), start=1):
        if box is not None:
            own = distance_transform_edt(np.pad(labels[box] == number, 1))[1:-1, 1:-1]
            distance[box] = np.maximum(distance[box], own / max(own.max(), 1))
    levels = np.rint(255 * gaussian_filter(distance, 1).clip(0, 1)).astype(np.uint8)
    missing = [(0, length - side) for length, side in zip(_TILE_PX, soft.shape, strict=True)]
    return np.pad(soft, missing, mode="symmetric"), np.pad(levels, missing, mode="symmetric")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
