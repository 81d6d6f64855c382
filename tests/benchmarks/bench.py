"""Measure; print one JSON line per figure: ``make bench``. Ratios are taken within one run, since machines differ.

predict: throughput of the stage against bare forward passes of the same tiles.
weights: the boundary weight map against one distance transform of the image per object.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.ndimage
import tifffile
import torch

import models
from pipeline.config import ImageConfig
from pipeline.device import prepare
from pipeline.inference import labels_of, logits_of, to_device
from pipeline.intensity import measure, row_bands
from pipeline.plan import SlidePlan
from pipeline.slides import open_slide
from pipeline.tiling import Grid
from pipeline.weights import weight_map
from pipeline.windows import ahead, batched, read_windows

SIDE_PX = 2048
TILE_PX = 512


def main() -> None:
    """Print the machine, then every figure."""
    device = prepare(threads=2)
    capability = torch.backends.cpu.get_cpu_capability()
    say("machine", device=str(device), capability=capability, torch=torch.__version__, system=platform.platform())
    nuclei, labels = demo_images()
    bench_predict(nuclei, device)
    bench_weights(labels)


def bench_predict(nuclei: np.ndarray, device: torch.device) -> None:
    """Reading, network and writing together against the network alone, on a slide of mirrored nuclei."""
    pixels = np.pad(nuclei, [(0, SIDE_PX - side) for side in nuclei.shape], mode="reflect")
    network = models.build("unet", in_channels=1, num_classes=2, options={"width": 32}).eval().to(device)
    network.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        tifffile.imwrite(path, pixels, tile=(256, 256), compression="zlib")
        with open_slide(path, memory_mb=1000) as slide:
            statistics = measure(row_bands(slide.read, slide.shape), pixels.dtype)
        plan = SlidePlan(
            slide=path,
            slide_sha256="",
            grid=Grid.plan(pixels.shape, geometry=network.geometry, tile_px=TILE_PX),
            view=ImageConfig(),
            statistics=statistics,
            pixel_size_um=None,
        )
        batches = [
            to_device(np.stack([window.pixels for window in group]), device)
            for group in batched(read_windows([("slide", plan)], memory_mb=1000))
        ]
        cut_px = plan.grid.cut_px
        labels_of(logits_of(network, batches[0], cut_px)).cpu()  # warm up
        bare_s = seconds(lambda: [labels_of(logits_of(network, batch, cut_px)).cpu() for batch in batches])

        def whole() -> None:
            for group in batched(ahead(read_windows([("slide", plan)], memory_mb=1000))):
                windows = to_device(np.stack([window.pixels for window in group]), device)
                labels_of(logits_of(network, windows, cut_px)).cpu()

        whole_s = seconds(whole)
    computed = sum(batch.shape[0] * batch.shape[2] * batch.shape[3] for batch in batches)
    say(
        "predict",
        megapixels_per_s=pixels.size / 1e6 / whole_s,
        network_share=bare_s / whole_s,
        redundancy=computed / pixels.size,
    )


def bench_weights(labels: np.ndarray) -> None:
    """Neighbourhoods of objects against a transform of the whole image for each of them."""
    objects = labels.astype(np.int32)
    classes = (objects > 0).astype(np.uint8)

    def direct() -> np.ndarray:
        ids = np.unique(objects[objects > 0])  # not every number is in use
        nearest = np.full((2, *objects.shape), np.inf)
        for index in ids:
            distance = scipy.ndimage.distance_transform_edt(objects != index)
            nearest = np.sort([*nearest, distance], axis=0)[:2]
        return 1 + 10 * np.exp(-((nearest[0] + nearest[1]) ** 2) / 50)

    def ours() -> np.ndarray:
        return weight_map(classes, objects, class_weight=np.ones(2), boundary_weight=10.0, sigma_px=5.0)

    difference = float(np.abs(direct() - ours()).max())
    say("weights", times_as_fast=seconds(direct) / seconds(ours), largest_difference=difference)


def demo_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the annotated micrograph that the package stardist carries, and its labels."""
    folder = Path(find_spec("stardist").origin).parent / "data" / "images"
    return tifffile.imread(folder / "img2d.tif"), tifffile.imread(folder / "mask2d.tif")


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def say(figure: str, **values: object) -> None:
    """Print one JSON line."""
    print(json.dumps({"figure": figure, **values}), flush=True)


if __name__ == "__main__":
    main()
