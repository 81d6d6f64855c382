"""The boundary weight map against one distance transform of the image per object."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.ndimage
import tifffile

from pipeline.weights import weight_map
from tests.benchmarks.common import say, say_machine, seconds


def main() -> None:
    """Print the machine, then the figure."""
    say_machine()
    _, labels = demo_images()
    bench_weights(labels)


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


if __name__ == "__main__":
    main()
