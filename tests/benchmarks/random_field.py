"""Measure the conditional random field: ``python -m tests.benchmarks.random_field [PROJECT ...]``.

random_field: seconds that it adds to the stage stitch on 4,096 x 4,096 px with two classes, radius 5 and 5 iterations,
compared with those of a U-Net of width 32 on the same cores; peak memory of the stage with and without it.

random_field_effect: scores of the slides of a project that was run (``make dsb2018``), with and without the field.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready
from pipeline.project.stage_settings import network_file, stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import Settings, read_settings
from pipeline.settings.stage_sections import ValidateConfig, parse_stage_config
from pipeline.training.comparison.pair_metrics import PairPredictor, measure_pair
from tests.benchmarks.common import THREADS, fresh_folder, say, say_machine, write_slide
from tests.support.jobs import Jobs
from tests.support.networks import write_network

SIDE_PX = 4096
STATED = {"radius_px": 5, "iterations": 5}
MEMORY_MB = 4000


def main(*projects: str) -> None:
    """Print the machine, then the cost of the field, then its effect in each project."""
    say_machine()
    with fresh_folder() as folder:
        weights = write_network(folder / "network", width=32)
        write_slide(Path("slide.tif"), (SIDE_PX, SIDE_PX))
        say("random_field", side_px=SIDE_PX, **STATED, **_cost(weights))
    for project in projects:
        with contextlib.chdir(project):
            settings = read_settings(Path("config/config.yaml"))
            for crf in (None, {}, STATED):
                masks = settings.masks.model_dump() | {"instances": "components", "crf": crf}
                changed = Settings.model_validate(settings.model_dump() | {"masks": masks})
                say("random_field_effect", project=Path(project).name, crf=crf, **_scores(changed))


def _cost(weights: Path) -> dict[str, float]:
    """Return seconds and memory of the stages of a slide in the current folder."""
    classes = ["background", "object"]
    jobs = Jobs(weights, threads=THREADS, classes=classes, masks={"crf": STATED, "instances": "components"})
    jobs.put("slide", Path("slide.tif"))
    jobs.measure("tile")
    jobs.measure("predict")
    with_s, with_peak = jobs.measure("stitch")
    jobs.configure(classes=classes, masks={"instances": "components"})
    without_s, without_peak = jobs.measure("stitch")
    network_s = jobs.entries("predict")["slide"].found["network_s"]
    return {
        "field_s": with_s - without_s,
        "network_s": network_s,
        "of_network": (with_s - without_s) / network_s,
        "peak_mb": with_peak / 1e6,
        "peak_without_mb": without_peak / 1e6,
    }


def _scores(settings: Settings) -> dict[str, float]:
    """Return the mean scores of the first network on the slides of the project in the current folder."""
    name = next(iter(settings.networks))
    config = parse_stage_config(ValidateConfig, stage_config(settings, "validate", name))
    network, card = load_network(Path(network_file(settings, name)))
    make_ready(network, torch.device("cpu"), config.precision)
    limits = {"memory_mb": MEMORY_MB, "threads": THREADS}
    predictor = PairPredictor(network=network, card=card, labels=config.labels, tile=config.tile, **limits)
    rows = []
    for pair in find_pairs(Path(settings.slides), Path(settings.references)):
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measure_pair(predictor, pair, config, scratch=Path(scratch)))
    scores = pd.DataFrame(rows)
    shown = ["foreground_dice", "objects_f1_50", "objects_f1_70", "adapted_rand_error", "surface_dice_mean"]
    return scores[[column for column in shown if column in scores]].mean().to_dict()


if __name__ == "__main__":
    main(*sys.argv[1:])
