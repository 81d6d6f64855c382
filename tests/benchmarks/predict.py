"""The stage ``predict`` compared with the network alone: a slide of 8,192² pixels, and 500 fields of 256² in one job.

``network_share`` is the time in the network over that of the stage, imports left out; ``of_bare`` is the time of the
bare forward passes of the same windows over that of the whole process, imports included. The passes are timed before
and after the process, since machines drift.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

from pipeline.base import paths
from pipeline.networks.model_card import card_path, read_card
from pipeline.networks.weights_file import load_network
from pipeline.prediction.forward import labels_of, logits_of
from pipeline.prediction.loop import batch_limit_px, make_ready
from pipeline.prediction.windows import Place, grouped
from pipeline.tiling.memory_budget import largest_window_px
from pipeline.tiling.plan import read_plans
from tests.benchmarks.common import THREADS, fresh_folder, say, say_machine, seconds, set_up, write_slide
from tests.support.jobs import Jobs
from tests.support.networks import write_network

PARTS = ("network_s", "reading_s", "writing_s")


def main(side: int = 8192, fields: int = 500) -> None:
    """Print the machine, then every figure."""
    device = set_up()
    say_machine()
    bench(device, side=side, fields=fields)


def bench(device: torch.device, *, side: int, fields: int, width: int = 32, precision: str = "float32") -> None:
    """Print the figures of a slide and of a plate."""
    with fresh_folder() as folder:
        weights = write_network(folder / "network", width=width)
        settings = {"threads": THREADS, "prediction": {"precision": precision}}
        write_slide(Path("slide.tif"), (side, side))
        slide = Jobs(weights, **settings)
        slide.put("slide", Path("slide.tif"))
        tile_s, _ = slide.measure("tile")
        shown = compare(slide, device, precision)
        stitch_s, _ = slide.measure("stitch")
        shown |= {"tile_s": tile_s, "stitch_s": stitch_s, "stitch_share": stitch_s / shown["process_s"]}
        say("predict", side_px=side, precision=precision, **shown)
        write_slide(Path("field.tif"), (256, 256), side=256)
        plate = Jobs(weights, **settings)
        for number in range(fields):
            plate.put(f"plate/{number:03d}", Path("field.tif"))
        plate.measure("tile")
        say("fields", count=fields, side_px=256, precision=precision, **compare(plate, device, precision))


def compare(jobs: Jobs, device: torch.device, precision: str) -> dict[str, float]:
    """Predict a batch, and run its windows through the network alone before and after."""
    slides = [(sample, read_plans(jobs.path(paths.PLAN, sample))[0]) for sample in jobs.entries("tile")]
    card = read_card(card_path(jobs.weights))
    limit_px = batch_limit_px(largest_window_px(card, jobs.memory_mb), device)
    groups = list(grouped(slides, limit_px, mixed=device.type != "cpu"))
    network, _ = load_network(jobs.weights)
    make_ready(network, device, precision)
    dtype = next(network.parameters()).dtype

    @torch.inference_mode()
    def bare(some: list[list[Place]]) -> None:
        for group in some:
            shape = len(group), 1, *group[0].tile.read.shape
            windows = torch.zeros(shape, device=device, dtype=dtype).to(memory_format=torch.channels_last)
            labels_of(logits_of(network, windows, group[0].tile.cut)).cpu()

    bare(groups[:1])  # warm up
    before_s = seconds(lambda: bare(groups))
    process_s, peak = jobs.measure("predict")
    bare_s = (before_s + seconds(lambda: bare(groups))) / 2
    found = [entry.found for entry in jobs.entries("predict").values()]
    total = {name: sum(of[name] for of in found) for name in ("pixels", "wall_s", *PARTS)}
    computed = sum(math.prod(place.tile.read.shape) for group in groups for place in group)
    return {
        "jobs": 1,
        "redundancy": computed / total["pixels"],
        "mpx_per_s": total["pixels"] / 1e6 / total["wall_s"],
        **{name.replace("_s", "_share"): total[name] / total["wall_s"] for name in PARTS},
        "process_s": process_s,
        "bare_s": bare_s,
        "of_bare": bare_s / process_s,
        "peak_mb": peak / 1e6,
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
