"""What threads gain on one large slide: ``python -m tests.benchmarks.large_slide``; one JSON line per stage.

The slide, 8,192 x 8,192 px, has the annotated nuclei that the package stardist carries, mirrored to size, in colours of
a stain and with camera noise. Its prediction is its annotation with soft borders; the reference is moved by a few
pixels and lacks some nuclei. ``times_as_fast`` is the wall time of a stage with one thread over that with two, each
the shorter of two runs in processes of their own, by turns. Imports do not count; nothing else should run meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from pipeline.masks.instances import mask_images
from pipeline.masks.mask_file import open_mask
from pipeline.masks.measurements.pixels import measure_pixels
from pipeline.masks.object_table import measure_objects, trace_objects
from pipeline.masks.ome_tiff import write_label_images
from pipeline.metrics.evaluation import copy_mask, copy_reference, measure
from pipeline.runtime.threads import use_threads
from pipeline.settings.masks import MaskConfig
from pipeline.settings.schema import ImageConfig, MetricsConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.intensity import measure_slide
from pipeline.slides.slide import open_slide
from pipeline.tiling.tissue import find_tissue
from tests.benchmarks.common import say, say_machine, seconds
from tests.benchmarks.weight_map import demo_images

_SIDE_PX = 8192
_VIEW = ImageConfig(channels=[0, 1, 2])
_LABELS = LabelConfig(classes=["background", "nucleus"], kind="classes", values=[0, 1])
_RUNS = 2


def main() -> None:
    """Print the machine, then a line per stage."""
    say_machine()
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder))
        for stage in _STAGES:
            taken: dict[str, list[float]] = {"1": [], "2": []}
            for threads in list(taken) * _RUNS:
                words = [sys.executable, "-m", "tests.benchmarks.large_slide", folder, stage, threads]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                taken[threads].append(float(done.stdout.splitlines()[-1]))
            one, two = (min(times) for times in taken.values())
            say("large_slide", stage=stage, one_thread_s=one, two_threads_s=two, times_as_fast=one / two)


def _tile(folder: Path) -> None:
    with open_slide(folder / "slide.tif", memory_mb=1000, view=_VIEW) as slide:
        measure_slide(slide)
        find_tissue(slide)


def _stitch(folder: Path, config: MaskConfig | None = None, name: str = "scratch.ome.tiff") -> None:
    prediction = zarr.open_group(folder / "prediction.zarr", mode="r")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        both = prediction["labels"], prediction["probabilities"]
        images = mask_images(*both, config or MaskConfig(instances="components"), pixel_um2=0.25, scratch=Path(scratch))
        write_label_images(folder / name, images, pixel_size_um=(0.5, 0.5), annotations={})


def _stitch_watershed(folder: Path) -> None:
    _stitch(folder, MaskConfig(instances="watershed"))


def _objects(folder: Path) -> None:
    with (
        open_slide(folder / "slide.tif", memory_mb=1000, view=_VIEW) as slide,
        open_mask(folder / "mask.ome.tiff", memory_mb=1000) as mask,
    ):
        assert mask.instances is not None
        table = measure_objects(mask.instances, mask.classes)
        measure_pixels(mask.instances, table, slide, ["shape", "intensity"])
        assert sum(1 for _ in trace_objects(mask.instances, table)) == len(table.ids)


def _evaluate(folder: Path) -> None:
    with (
        open_slide(folder / "reference.tif", memory_mb=1000) as reference,
        open_mask(folder / "mask.ome.tiff", memory_mb=1000) as mask,
        tempfile.TemporaryDirectory(dir=folder) as scratch,
    ):
        measure(
            copy_reference(reference, _LABELS, Path(scratch) / "truth"),
            copy_mask(mask.classes, mask.instances, Path(scratch) / "predicted"),
            classes=_LABELS.classes,
            config=MetricsConfig(),
            pixel_size_um=(0.5, 0.5),
            probabilities=zarr.open_group(folder / "prediction.zarr", mode="r")["probabilities"],
        )


_STAGES = {
    "tile": _tile,
    "stitch": _stitch,
    "stitch_watershed": _stitch_watershed,
    "objects": _objects,
    "evaluate": _evaluate,
}


def _make(folder: Path) -> None:
    """Write slide, prediction, mask and reference."""
    image, labels = demo_images()
    missing = [(0, _SIDE_PX - side) for side in image.shape]
    low, high = np.percentile(image, [1, 99.8])
    bright = np.pad(np.clip((image.astype(np.float32) - low) / (high - low), 0, 1), missing, mode="symmetric")
    generator = np.random.default_rng(0)
    slide = np.empty((*bright.shape, 3), np.uint8)
    for channel, absorbed in enumerate((120, 160, 60)):
        noise = generator.normal(0, 6, bright.shape)
        slide[..., channel] = np.clip(235 - absorbed * bright + noise, 0, 255)
    tiled = {"tile": (512, 512), "compression": "zlib"}
    tifffile.imwrite(folder / "slide.tif", slide, photometric="rgb", **tiled)
    soft = gaussian_filter((labels > 0).astype(np.float32), 1)
    soft = np.pad(soft, missing, mode="symmetric").astype(np.float16)
    prediction = zarr.open_group(folder / "prediction.zarr", mode="w")
    both = {"labels": (soft > 0.5).astype(np.uint8), "probabilities": np.stack([1 - soft, soft])}
    for name, pixels in both.items():
        chunks = (*(1 for _ in pixels.shape[2:]), 512, 2048)
        prediction.create_array(name, data=pixels, chunks=chunks)
    reference = np.roll(both["labels"], (2, 3), (0, 1))
    for row, column in generator.integers(0, _SIDE_PX - 60, (400, 2)):
        reference[row : row + 60, column : column + 60] = 0
    tifffile.imwrite(folder / "reference.tif", reference, **tiled)
    _stitch(folder, name="mask.ome.tiff")


if __name__ == "__main__":
    if sys.argv[1:]:
        use_threads(int(sys.argv[3]))
        print(seconds(lambda: _STAGES[sys.argv[2]](Path(sys.argv[1]))))
    else:
        main()
