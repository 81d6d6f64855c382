"""Prediction compared with MONAI's ``sliding_window_inference``: a slide of 4,096² pixels, the same network.

Theirs: eager float32, windows of 512², overlap 0.25 (its default) and 0.5 with Gaussian weights. Ours: as the stage
``predict`` computes, exactly; and in bfloat16, with the share of labels that it changes. The network is trained here
for some minutes: labels of one that has learned nothing are undecided everywhere, and any rounding changes them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from pipeline.networks.model_card import card_path, read_card
from pipeline.networks.weights_file import load_network
from pipeline.prediction.forward import Windows, crop_to, labels_of, logits_of, to_device
from pipeline.prediction.loop import make_ready
from pipeline.runtime.device import is_faster_in_bfloat16
from pipeline.settings.schema import MIRROR_PX
from pipeline.slides.intensity import HIGH_PERCENT, LOW_PERCENT
from pipeline.tiling.grid import Grid
from pipeline.tiling.mirror_padding import read_mirrored
from pipeline.tiling.plan import plan_grid
from tests.benchmarks.common import THREADS, micrographs, say, say_machine, seconds, set_up, train_network

MEMORY_MB = 4000


def main(side: int = 4096, minutes: float = 3) -> None:
    """Print the machine, then every figure."""
    say_machine()
    bench(side, minutes)


def bench(side: int, minutes: float, *, width: int = 32) -> None:
    """Print every figure; MONAI goes first, since :func:`set_up` changes the heap for good."""
    torch.set_num_threads(THREADS)
    image = np.pad(micrographs(), [(0, side - 1024)] * 2, mode="reflect")[None].astype(np.float32)
    low, high = np.percentile(image, [LOW_PERCENT, HIGH_PERCENT])
    image = (image - np.float32(low)) / np.float32(high - low)
    with tempfile.TemporaryDirectory() as folder:
        weights = train_network(Path(folder), width=width, minutes=minutes)
        card = read_card(card_path(weights))
        say("trained", minutes=minutes, steps=card.metrics["step"], dice_mean=card.metrics["dice_mean"])
        theirs, _ = load_network(weights)
        seconds_of = {
            "default": monai_s(theirs, image, overlap=0.25, mode="constant"),
            "gaussian": monai_s(theirs, image, overlap=0.5, mode="gaussian"),
        }
        device = set_up()
        exact, exact_s = ours(weights, image, "float32", device)
        grid = plan_grid(exact.shape, card, MEMORY_MB, tile_px=None, mirror_px=MIRROR_PX)
        say_times("float32", exact_s, seconds_of, side_px=side, redundancy=grid.redundancy)
        if not is_faster_in_bfloat16(device):
            say("sliding_window", precision="bfloat16", skipped="this processor is not faster in it")
            return
        rounded, rounded_s = ours(weights, image, "bfloat16", device)
    say_times("bfloat16", rounded_s, seconds_of, side_px=side, changed_labels=float((exact != rounded).mean()))


def ours(weights: Path, image: np.ndarray, precision: str, device: torch.device) -> tuple[np.ndarray, float]:
    """Return the labels of an image and the time they took."""
    network, card = load_network(weights)
    make_ready(network, device, precision)
    sides = (1024, 1024), (image.shape[1], image.shape[2])
    small, grid = (plan_grid(shape, card, MEMORY_MB, tile_px=None, mirror_px=MIRROR_PX) for shape in sides)
    run_tiles(network, image[:, :1024, :1024], small)  # warm up
    found = []
    taken = seconds(lambda: found.append(run_tiles(network, image, grid)))
    return found[0], taken


def say_times(precision: str, taken: float, seconds_of: dict[str, float], **values: object) -> None:
    """Print the time, and its ratio to that of MONAI."""
    faster = {f"times_as_fast_as_{name}": theirs / taken for name, theirs in seconds_of.items()}
    say("sliding_window", precision=precision, seconds=taken, **faster, **values)


@torch.inference_mode()
def monai_s(network: torch.nn.Module, image: np.ndarray, *, overlap: float, mode: str) -> float:
    """Return the time that MONAI takes."""
    pixels = torch.from_numpy(image)[None]
    network(pixels[..., :512, :512])  # warm up

    def run() -> None:
        logits = sliding_window_inference(
            pixels, roi_size=(512, 512), sw_batch_size=4, predictor=network, overlap=overlap, mode=mode
        )
        logits.argmax(dim=1).to(torch.uint8).numpy()

    taken = seconds(run)
    say("monai", overlap=overlap, mode=mode, seconds=taken)
    return taken


@torch.inference_mode()
def run_tiles(network: torch.nn.Module, image: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the labels of an image, tile by tile."""
    weight = next(network.parameters())
    labels = np.empty(image.shape[1:], dtype=np.uint8)
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], grid.shape, tile.read)
        logits = logits_of(network, to_device(Windows.normalized(window[None]), weight), tile.cut)
        labels[tile.write.slices] = crop_to(labels_of(logits), tile)[0].cpu().numpy()
    return labels


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
