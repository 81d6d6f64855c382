"""The stage ``predict`` compared with the network alone: a slide of 8,192² pixels, and 500 fields of 256² in one job.

``network_share`` is the time in the network over that of the stage, imports left out; ``of_bare`` is the time of the
bare forward passes of the same windows over that of the whole process, imports included. The passes are timed before
and after the process, since machines drift.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from models.base.folding import fold_batch_norm
from pipeline.networks.model_card import card_path, read_card
from pipeline.networks.weights_file import load_network
from pipeline.prediction.forward import labels_of, logits_of
from pipeline.prediction.loop import batch_limit_px
from pipeline.prediction.measurements import read_speed
from pipeline.prediction.windows import grouped
from pipeline.runtime.device import prepare
from pipeline.tiling.memory_budget import largest_window_px
from pipeline.tiling.plan import read_plan
from tests.benchmarks.common import THREADS, Project, say, say_machine, seconds, write_slide
from tests.support.networks import write_network


def main(side: int = 8192, fields: int = 500) -> None:
    """Print the machine, then every figure."""
    device = prepare(THREADS)
    say_machine()
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), write_network(Path(folder), width=32))
        write_slide(Path(folder) / "slide.tif", (side, side))
        tile_s, _ = project.tile("slide", Path(folder) / "slide.tif")
        shown = compare(project, "slide", ["slide"], device)
        stitch_s, _ = project.stitch("slide", "slide")
        shown |= {"tile_s": tile_s, "stitch_s": stitch_s, "stitch_share": stitch_s / shown["process_s"]}
        say("predict", side_px=side, **shown)
        write_slide(Path(folder) / "field.tif", (256, 256), side=256)
        samples = [f"fields/{number:03d}" for number in range(fields)]
        project.tile(samples[0], Path(folder) / "field.tif")
        project.plan_alike(samples[0], samples[1:])
        say("fields", count=fields, side_px=256, **compare(project, "fields", samples, device))


def compare(project: Project, batch: str, samples: list[str], device: torch.device) -> dict[str, float]:
    """Predict a batch, and run its windows through the network alone before and after."""
    slides = [(sample, read_plan(project.plan(sample)).slide) for sample in samples]
    card = read_card(card_path(project.weights))
    limit_px = batch_limit_px(largest_window_px(card, project.memory_mb), device)
    shapes = [(len(group), *group[0].tile.read.shape) for group in grouped(slides, limit_px)]
    network, _ = load_network(project.weights)
    fold_batch_norm(network)
    network.to(device).to(memory_format=torch.channels_last)
    cut_px = slides[0][1].grid.cut_px

    @torch.inference_mode()
    def bare(windows_of: list[tuple[int, int, int]]) -> None:
        for count, rows, columns in windows_of:
            windows = torch.zeros(count, 1, rows, columns, device=device).to(memory_format=torch.channels_last)
            labels_of(logits_of(network, windows, cut_px)).cpu()

    bare(shapes[:1])  # warm up
    before_s = seconds(lambda: bare(shapes))
    process_s, peak = project.predict(batch)
    bare_s = (before_s + seconds(lambda: bare(shapes))) / 2
    speed = read_speed(project.speed(batch))
    computed = sum(count * rows * columns for count, rows, columns in shapes)
    return {
        "jobs": 1,
        "redundancy": computed / speed.pixels,
        "mpx_per_s": speed.pixels / 1e6 / speed.wall_s,
        "network_share": speed.network_s / speed.wall_s,
        "reading_share": speed.reading_s / speed.wall_s,
        "writing_share": speed.writing_s / speed.wall_s,
        "process_s": process_s,
        "bare_s": bare_s,
        "of_bare": bare_s / process_s,
        "peak_mb": peak / 1e6,
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
