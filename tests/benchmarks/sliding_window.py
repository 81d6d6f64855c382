"""Against MONAI's ``sliding_window_inference`` as its users run it: a slide of 4,096² pixels, the same network.

Theirs: eager float32, windows of 512², overlap 0.25 (its default) and 0.5 with Gaussian weights. Ours: as the stage
``predict`` computes, exactly; and in bfloat16, with the share of labels that it changes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from models.folding import fold_batch_norm
from pipeline.checkpoint import card_path, read_card
from pipeline.device import computes_bfloat16, prepare
from pipeline.inference import crop_to, labels_of, logits_of, to_device
from pipeline.memory import largest_window_px
from pipeline.tiling import Grid, read_mirrored
from pipeline.weights_file import load_network
from tests.benchmarks.common import THREADS, micrographs, say, say_machine, seconds, write_network

MEMORY_MB = 4000


def main(side: int = 4096) -> None:
    """Print the machine, then every figure; MONAI goes first, since :func:`prepare` changes the heap for good."""
    torch.set_num_threads(THREADS)
    say_machine()
    image = np.pad(micrographs(), [(0, side - 1024)] * 2, mode="reflect")[None].astype(np.float32) / 255
    with tempfile.TemporaryDirectory() as folder:
        weights = write_network(Path(folder), width=32)
        theirs, _ = load_network(weights)
        seconds_of = {
            "default": monai_s(theirs, image, overlap=0.25, mode="constant"),
            "gaussian": monai_s(theirs, image, overlap=0.5, mode="gaussian"),
        }
        window_px = largest_window_px(read_card(card_path(weights)), MEMORY_MB)
        device = prepare(THREADS)
        network, _ = load_network(weights)
    fold_batch_norm(network)
    network.to(device).to(memory_format=torch.channels_last)
    grid = Grid.within((side, side), geometry=network.geometry, window_px=window_px)
    run_tiles(network, image[:, :1024, :1024], Grid.plan((1024, 1024), geometry=network.geometry, tile_px=1024))
    exact, exact_s = timed(lambda: run_tiles(network, image, grid))
    faster = {f"times_as_fast_as_{name}": seconds / exact_s for name, seconds in seconds_of.items()}
    say("sliding_window", side_px=side, precision="float32", seconds=exact_s, redundancy=grid.redundancy, **faster)
    if not computes_bfloat16(device):
        say("sliding_window", precision="bfloat16", skipped="this processor does not compute bfloat16 in hardware")
        return
    network.bfloat16()
    run_tiles(network, image[:, :1024, :1024], Grid.plan((1024, 1024), geometry=network.geometry, tile_px=1024))
    rounded, rounded_s = timed(lambda: run_tiles(network, image, grid))
    faster = {f"times_as_fast_as_{name}": seconds / rounded_s for name, seconds in seconds_of.items()}
    changed = float((exact != rounded).mean())
    say("sliding_window", side_px=side, precision="bfloat16", seconds=rounded_s, changed_labels=changed, **faster)


@torch.inference_mode()
def monai_s(network: torch.nn.Module, image: np.ndarray, *, overlap: float, mode: str) -> float:
    """Return how long MONAI takes."""
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
        logits = logits_of(network, to_device(window[None], weight), grid.cut_px)
        labels[tile.write.slices] = crop_to(labels_of(logits), tile)[0].cpu().numpy()
    return labels


def timed(work):
    """Return what one call returns, and its seconds."""
    result = []
    taken = seconds(lambda: result.append(work()))
    return result[0], taken


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
