"""Measure the stage stitch: ``python -m tests.benchmarks.stitch``; one JSON line per figure.

The prediction is made of the annotated nuclei that the package stardist carries, mirrored to size, with probabilities
that fall off over the borders. Every figure is taken in a process of its own.

stitch: seconds (wall, processor) and megapixels per second of the stage without imports, on 8,192 x 8,192 px, for each
kind of objects.
stitch_memory: peak memory for slides of 2,048 columns and 10,000, 40,000 and 100,000 rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.base.files import write_json
from pipeline.prediction.store import write_predictions
from pipeline.slides.intensity import NORMALIZATION
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import Plan
from tests.benchmarks.common import say
from tests.benchmarks.weight_map import demo_images
from tests.support.networks import CARD
from tests.support.prediction import plan_of

_TILE_PX = (1056, 2048)  # what 4 GB allow a U-Net of width 32 on 8,192 x 8,192 px
_CARD = replace(CARD, classes=["background", "nucleus"], normalization=NORMALIZATION)
_KINDS = {
    "components": {},
    "watershed": {"instances": "watershed"},
    "cleaned": {"min_object_um2": 10.0, "max_hole_um2": 10.0},
}


# Stitch what `_make` wrote, without what only this benchmark imports; print seconds and peak memory.
_MEASURED = """
import json, sys, time
from pathlib import Path
from pipeline.settings.schema import MaskConfig
from pipeline.stages import stitch
folder, config = Path(sys.argv[1]), MaskConfig(**json.loads(sys.argv[2]))
files = {"prediction": folder / "slide.zarr.zip", "plan": folder / "plan.json", "model": folder / "model.json"}
start, start_cpu = time.perf_counter(), time.process_time()
stitch.run(sample="slide", **files, output=folder / "mask.ome.tiff", config=config)
wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
peak_kib = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(wall_s, cpu_s, int(peak_kib) * 1024 / 1e6)
"""


def main() -> None:
    """Print every figure."""
    for kind in _KINDS:
        say("stitch", kind=kind, **_in_a_process(kind, 8192, 8192))
    for rows in (10_000, 40_000, 100_000):
        say("stitch_memory", rows=rows, **_in_a_process("components", rows, 2048))


def _in_a_process(kind: str, rows: int, columns: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder), rows, columns, probabilities=kind == "watershed")
        words = [sys.executable, "-c", _MEASURED, folder, json.dumps(_KINDS[kind])]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        wall_s, cpu_s, peak_mb = map(float, done.stdout.splitlines()[-1].split())
        file_mb = (Path(folder) / "mask.ome.tiff").stat().st_size / 1e6
    measured = {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb, "file_mb": file_mb}
    return measured | {"megapixels_per_s": rows * columns / 1e6 / wall_s}


def _make(folder: Path, rows: int, columns: int, *, probabilities: bool) -> None:
    """Write prediction, plan and model.json of a slide."""
    patch = _probabilities()
    grid = Grid(shape=(rows, columns), tile=_TILE_PX, halo_px=96, stride_px=16)
    write_json(folder / "plan.json", Plan(sample="slide", slide=plan_of(grid, pixel_size_um=(0.5, 0.5))).to_dict())
    write_json(folder / "model.json", _CARD.to_dict())
    with write_predictions(
        folder / "slide.zarr.zip", num_classes=2, probabilities=probabilities, identity="a"
    ) as writer:
        writer.begin("slide", grid)
        for tile in grid.tiles():
            height, width = tile.write.shape
            part = patch[:height, :width]
            kept = np.stack([1 - part, part]).astype(np.float16) if probabilities else None
            writer.write("slide", tile.write, (part > 0.5).astype(np.uint8), kept)
        writer.finish({})


def _probabilities() -> np.ndarray:
    """Return one tile of foreground probabilities."""
    _, labels = demo_images()
    soft = gaussian_filter((labels > 0).astype(np.float32), 1)
    missing = [(0, length - side) for length, side in zip(_TILE_PX, soft.shape, strict=True)]
    return np.pad(soft, missing, mode="symmetric")


if __name__ == "__main__":
    main()
