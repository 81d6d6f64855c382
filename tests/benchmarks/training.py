"""Fifteen minutes of training on the electron micrographs of ISBI 2012: Slidemill and a plain MONAI recipe.

Theirs is what a tutorial of MONAI does: BasicUNet, DiceCELoss, random crops, flips and rotations, Adam at 1e-3, the
weights of the last step, a sliding window. Ours is ``make isbi2012``, whose three networks share the minutes.
Slices 0-19 train, slices 20-23 are evaluated, both by the same code; each recipe gets the same minutes and the same
cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, RandFlipd, RandRotate90d, RandRotated, RandSpatialCropd

from pipeline.metrics.evaluation import copy_reference, measure
from pipeline.settings.schema import MetricsConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.slide import open_slide
from tests.benchmarks.common import THREADS, by_time, run_example, say, say_machine
from tests.support.paths import DATA

LABELS = LabelConfig(classes=["membrane", "cell"], kind="classes", values=[0, 255])
TRAINING, EVALUATED = range(20), range(20, 24)
SHOWN = ["dice_membrane", "dice_cell", "adapted_rand_error"]


def main(minutes: float = 15, *recipes: str) -> None:
    """Print the machine, then the mean scores of the recipes named on the command line (default: both)."""
    say_machine()
    torch.set_num_threads(THREADS)
    for recipe in recipes or _RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            scores = _RECIPES[recipe](Path(folder), minutes)
        say("training", recipe=recipe, minutes=minutes, **scores)


def _monai(folder: Path, minutes: float) -> dict[str, float]:
    """Train the plain recipe, segment the evaluated slices, and return their mean scores."""
    torch.manual_seed(0)
    both = ("image", "label")
    change = Compose(
        [
            RandSpatialCropd(both, roi_size=(256, 256), random_size=False),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandRotate90d(both, prob=0.5, max_k=3),
            RandRotated(both, range_x=np.pi / 12, prob=0.5, mode=("bilinear", "nearest"), padding_mode="reflection"),
        ]
    )
    change.set_random_state(seed=0)
    samples = [{"image": _image(number), "label": _classes(number)[None]} for number in TRAINING]
    loader = DataLoader(CacheDataset(samples, change, progress=False), batch_size=4, shuffle=True)
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=2)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < 60 * minutes:
        for batch in loader:
            optimizer.zero_grad()
            loss_of(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            steps += 1
    network.eval()
    for number in EVALUATED:
        with torch.inference_mode():
            logits = sliding_window_inference(torch.from_numpy(_image(number)[None]), (256, 256), 4, network)
        labels = torch.as_tensor(logits).argmax(1)[0].numpy().astype(np.uint8) * 255
        tifffile.imwrite(folder / f"{number:02d}.tif", labels)
    rows = [_scores(folder / f"{number:02d}.tif", _reference(number), folder / str(number)) for number in EVALUATED]
    return {"steps": steps} | pd.DataFrame(rows)[SHOWN].mean().to_dict()


def _slidemill(folder: Path, minutes: float) -> dict[str, float]:
    """Run the example, and return the mean scores of its metrics."""
    return run_example(folder, "isbi2012", by_time(minutes), SHOWN)["unets"]


def _scores(mask: Path, reference: Path, scratch: Path) -> dict[str, object]:
    with open_slide(reference, memory_mb=1000) as truth, open_slide(mask, memory_mb=1000) as predicted:
        return measure(
            copy_reference(truth, LABELS, scratch / "truth"),
            copy_reference(predicted, LABELS, scratch / "predicted"),
            classes=LABELS.classes,
            config=MetricsConfig(),
            pixel_size_um=None,
            probabilities=None,
        )


def _image(number: int) -> np.ndarray:
    """Return one slice, (1, 512, 512) float32 in [0, 1]."""
    return tifffile.imread(DATA / "isbi2012" / "images" / f"{number:02d}.tif")[None].astype(np.float32) / 255


def _classes(number: int) -> np.ndarray:
    return (tifffile.imread(_reference(number)) > 0).astype(np.float32)


def _reference(number: int) -> Path:
    return DATA / "isbi2012" / "masks" / f"{number:02d}.tif"


_RECIPES = {"monai": _monai, "slidemill": _slidemill}

if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *sys.argv[2:])
