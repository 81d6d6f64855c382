"""The default learning rate on five kinds of images: ``python -m tests.benchmarks.learning_rate 100 3``.

For each set, optimizer and rate: the foreground Dice on the held-back images after some steps (100), as mean and spread
over seeds (3). And the range that ``find-lr`` prints.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from pipeline.commands import find_lr
from pipeline.networks.model_card import card_path, read_card
from pipeline.settings.schema import Settings
from pipeline.training.lr_range import usable_range
from tests.benchmarks.common import THREADS, fresh_folder, run_training, say, say_machine
from tests.support.paths import DATA

RATES = (1e-3, 3e-3, 1e-2)
MOST_IMAGES = 12  # of a set


class Set(NamedTuple):
    """A data set: the folder of its labels, and how they are read."""

    labels: str
    classes: list[str]
    training: dict[str, object]
    channels: list[int]
    modality: str = ""


SETS = {
    "isbi2012": Set("masks", ["membrane", "cell"], {"kind": "classes", "values": [0, 255]}, [0]),
    "dsb2018": Set("labels", ["background", "nucleus"], {"kind": "instances"}, [0], "fluorescence"),
    "phase_contrast": Set("labels", ["background", "cell"], {"kind": "instances"}, [0]),
    "wbc": Set("masks", ["background", "cytoplasm", "nucleus"], {"kind": "classes"}, [0, 1, 2]),
    "axon_sem": Set("masks", ["background", "myelin", "axon"], {"kind": "classes"}, [0]),
}


def main(steps: int = 100, seeds: int = 3, *names: str) -> None:
    """Print the machine, then the figures of each set."""
    say_machine()
    for name in names or SETS:
        with fresh_folder() as folder:
            lay_out(name, folder)
            lowest, highest = range_test(name, folder)
            say("find-lr", set=name, lowest=lowest, highest=highest)
            for rate in RATES:
                scores = [score(name, folder, rate, steps, seed) for seed in range(seeds)]
                spread = statistics.stdev(scores) if seeds > 1 else None
                mean = statistics.mean(scores)
                say("learning_rate", set=name, rate=rate, steps=steps, seeds=seeds, dice=mean, spread=spread)


def settings(name: str, **changes: object) -> Settings:
    """Return the default settings for a set: a U-Net of width 16 on patches of 128 px."""
    of = SETS[name]
    model = {"options": {"width": 16}, "patch_px": 128, "batch_size": 8, "loss": {"boundary_weight": 0}} | changes
    return Settings.model_validate(
        {
            "classes": of.classes,
            "image": {"channels": of.channels},
            "training": {"images": "images", "labels": "labels", "validation": 0.25} | of.training,
            "models": {"unet": model},
        }
    )


def lay_out(name: str, folder: Path) -> None:
    """Link the images and labels of a set, evenly chosen."""
    chosen = list(of_set(name))
    for image in chosen[:: -(-len(chosen) // MOST_IMAGES)]:
        for ours, theirs in (("images", "images"), ("labels", SETS[name].labels)):
            (folder / ours).mkdir(exist_ok=True)
            (folder / ours / image).symlink_to((DATA / name / theirs / image).resolve())


def of_set(name: str) -> Iterator[str]:
    """Yield the names of the images of a set."""
    with (DATA / name / "index.csv").open(encoding="utf-8") as file:
        of_modality = {row["id"] for row in csv.DictReader(file) if row.get("modality", "") == SETS[name].modality}
    for path in sorted((DATA / name / "images").iterdir()):
        if not SETS[name].modality or path.stem in of_modality:
            yield path.name


def score(name: str, folder: Path, rate: float, steps: int, seed: int) -> float:
    """Return the foreground Dice of a training."""
    chosen = settings(name, learning_rate=rate, max_steps=steps, validate_every=steps, seed=seed)
    own = folder / f"{rate:g} {seed}"
    own.mkdir()
    weights = run_training(own, chosen, folder / "images", folder / "labels")
    return float(read_card(card_path(weights)).metrics["foreground_dice"])


def range_test(name: str, folder: Path) -> tuple[float, float]:
    """Return the range that ``find-lr`` prints."""
    chosen = settings(name, max_steps=1)
    run_training(folder, chosen, folder / "images", folder / "labels")  # for its weight maps
    (folder / "config.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")), encoding="utf-8")
    find_lr.run(model="unet", settings=Path("config.yaml"), threads=THREADS)
    tried = pd.read_csv("results/find-lr/unet.csv")
    return usable_range(tried["learning_rate"].tolist(), tried["loss"].tolist())


if __name__ == "__main__":
    arguments = [json.loads(one) if one[0].isdigit() else one for one in sys.argv[1:]]
    main(*arguments)
