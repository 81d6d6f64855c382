"""Objects that touch: four examples (``make dsb2018`` ...), trained for 15 minutes on one core, with three seeds.

Trainings run side by side, a core each. Beside the masks of the example are those of the same networks with connected
components and with the watershed, each also by the ensembles of the example. Printed are means over the images that no
training has seen, then over the seeds.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pandas as pd

from tests.benchmarks.common import by_time, run_example, say, say_machine

SHOWN = {
    "dsb2018": ["dice_nucleus", "objects_ap_50", "objects_f1_50", "objects_f1_70"],
    "isbi2012": ["dice_membrane", "dice_cell", "adapted_rand_error"],
    "phase_contrast": ["dice_cell", "objects_ap_50", "objects_f1_50", "objects_f1_70"],
    "wbc": ["dice_cytoplasm", "dice_nucleus", "objects_ap_50", "objects_f1_50", "objects_f1_70"],
}
WAYS = ("chosen", "components", "watershed")


def main(minutes: float = 15, seeds: int = 3, *examples: str) -> None:
    """Print the machine, then the figures of each training, then their means."""
    say_machine()
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in os.sched_getaffinity(0):
        cores.put(core)

    def on_own_core(example: str, seed: int) -> list[dict[str, object]]:
        core = cores.get()
        os.sched_setaffinity(0, {core})  # of this thread, and of the processes that it starts
        try:
            return trained(example, minutes, seed)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        jobs = product(examples or SHOWN, range(int(seeds)))
        rows = [row for found in pool.map(lambda job: on_own_core(*job), jobs) for row in found]
    for (example, model, way), part in pd.DataFrame(rows).groupby(["example", "model", "objects"], sort=False):
        means = part[["steps", *SHOWN[str(example)]]].mean().to_dict()
        say("touching, mean", example=example, model=model, objects=way, minutes=minutes, seeds=seeds, **means)


def trained(example: str, minutes: float, seed: int) -> list[dict[str, object]]:
    """Train once; return the scores of each model and each way to tell objects apart."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            masks = None if way == "chosen" else {"instances": way}
            changes = by_time(minutes) | {"seed": seed}
            scores = run_example(Path(folder), example, changes, SHOWN[example], masks=masks, cores=1)
            for model, found in scores.items():
                row = {"example": example, "model": model, "objects": way} | found
                say("touching", minutes=minutes, seed=seed, **row)
                rows.append(row)
    return rows


if __name__ == "__main__":
    main(*map(float, sys.argv[1:3]), *sys.argv[3:])
