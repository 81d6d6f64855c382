"""Boundary weights: nuclei of DSB 2018 learned with and without them, with the same seed, time and cores.

The images are those of ``make dsb2018``; fields of view that training has not seen are evaluated. Objects are connected
components, which the network alone parts, and then also what the watershed makes of the same probabilities.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
import yaml

from config.examples.lay_out import lay_out
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import Settings
from pipeline.settings.stage_sections import ValidateConfig, parse_stage_config
from pipeline.training.comparison.pair_metrics import PairPredictor, measure_pair
from tests.benchmarks.common import THREADS, by_time, run_training, say, say_machine

SHOWN = ["dice_nucleus", "objects_f1_50", "objects_f1_70", "objects_f1_80", "panoptic_quality"]
MEMORY_MB = 4000


def main(minutes: float = 15, *weights: float) -> None:
    """Print the machine, then the mean scores of each boundary weight."""
    say_machine()
    torch.set_num_threads(THREADS)
    for weight in weights or (10.0, 0.0):
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder) / "dsb2018"
            lay_out("dsb2018", project)
            settings = yaml.safe_load((project / "config" / "config.yaml").read_text(encoding="utf-8"))
            settings["models"]["unet"] |= by_time(minutes) | {"loss": {"boundary_weight": weight}}
            training = project / "data" / "training"
            weights_file = run_training(
                project, Settings.model_validate(settings), training / "images", training / "labels"
            )
            steps = int(pd.read_csv(weights_file.with_name("history.csv"))["step"].max())
            for objects in ("components", "watershed"):
                settings["masks"] = {"instances": objects}
                scores = _evaluate(project, weights_file, Settings.model_validate(settings))
                say("boundary", boundary_weight=weight, minutes=minutes, steps=steps, objects=objects, **scores)


def _evaluate(project: Path, weights: Path, settings: Settings) -> dict[str, float]:
    """Return the mean scores of the network on the slides of a project."""
    config = parse_stage_config(ValidateConfig, stage_config(settings, "validate", "unet"))
    network, card = load_network(weights)
    make_ready(network, torch.device("cpu"), config.precision)
    limits = {"memory_mb": MEMORY_MB, "threads": THREADS}
    predictor = PairPredictor(network=network, card=card, labels=config.labels, tile=config.tile, **limits)
    rows = []
    for pair in find_pairs(project / "data" / "slides", project / "data" / "references"):
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measure_pair(predictor, pair, config, scratch=Path(scratch)))
    scores: dict[str, float] = pd.DataFrame(rows)[SHOWN].mean().to_dict()
    return scores


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
