"""The boundary weight map: its time in units of distance transforms, and its difference from the formula."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.ndimage
import tifffile

from pipeline.training.data.weight_map import reach_px, weight_map
from tests.benchmarks.common import say, say_machine, seconds
from tests.support.weight_maps import PUBLISHED, direct

_REPEATS = 7  # the fastest counts: other work on the machine only adds time


def main() -> None:
    """Print the machine, then the figures."""
    say_machine()
    _, labels = demo_images()
    labels = crowded(labels.astype(np.int32))
    bench_field(labels[:512, :512])
    bench_large(labels[:2048, :2048])


def bench_field(labels: np.ndarray) -> None:
    """Compare one field of view with a transform of the whole image for each of its objects."""
    difference = formula(labels) - ours(labels)
    slow, fast = best(lambda: formula(labels), lambda: ours(labels), repeats=3)
    say_map(labels, difference, times_as_fast=slow / fast)


def bench_large(labels: np.ndarray) -> None:
    """Compare many fields side by side with one transform of the image, and with the formula on a crop."""
    fast, transform = best(lambda: ours(labels), lambda: scipy.ndimage.distance_transform_edt(labels == 0))
    margin = reach_px(**PUBLISHED)
    inner, around = slice(800, 1200), slice(800 - margin, 1200 + margin)
    difference = formula(labels[around, around])[margin:-margin, margin:-margin] - ours(labels)[inner, inner]
    say_map(labels, difference, map_s=fast, transform_s=transform, transforms=fast / transform)


def say_map(labels: np.ndarray, difference: np.ndarray, **values: float) -> None:
    """Print the figures of a map."""
    largest = f"{np.abs(difference).max():.1e}"
    objects = len(np.unique(labels[labels > 0]))
    say("weights", shape=labels.shape, objects=objects, **values, largest_difference=largest)


def ours(objects: np.ndarray) -> np.ndarray:
    """Return the weight map that training uses."""
    return weight_map((objects > 0).astype(np.uint8), objects, class_weight=np.ones(2), **PUBLISHED)


def formula(objects: np.ndarray) -> np.ndarray:
    """Return the formula, by a transform of the whole image for each object."""
    return direct(objects, (objects > 0).astype(np.uint8), np.ones(2), **PUBLISHED)


def crowded(labels: np.ndarray) -> np.ndarray:
    """Return shrunk copies of the labels side by side, (2115, 2115); 2048 x 2048 px of them have about 2,900 nuclei."""
    side = 423  # of 512: 183 nuclei per 512 px instead of 125
    picked = (np.arange(side) * len(labels)) // side
    small = labels[np.ix_(picked, picked)]
    return np.block([[np.where(small, small + (5 * i + j) * small.max(), 0) for j in range(5)] for i in range(5)])


def best(*works: Callable[[], object], repeats: int = _REPEATS) -> list[float]:
    """Return the shortest wall time of each work, called in turns."""
    return [min(times) for times in zip(*([seconds(work) for work in works] for _ in range(repeats)), strict=True)]


def demo_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the annotated micrograph that the package stardist carries, and its labels."""
    folder = Path(find_spec("stardist").origin).parent / "data" / "images"
    return tifffile.imread(folder / "img2d.tif"), tifffile.imread(folder / "mask2d.tif")


if __name__ == "__main__":
    main()
