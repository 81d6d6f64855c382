"""Boundary weights: nuclei of DSB 2018 learned with and without them, with the same seed, time and cores.

It is ``make dsb2018`` twice, but for objects: these are connected components, so that the network alone parts nuclei
that touch, which is what the weights are for. Images of fields of view that training has not seen are evaluated.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.benchmarks.common import run_example, say, say_machine

SHOWN = ["dice_nucleus", "objects_f1_50", "objects_f1_70", "objects_f1_80", "panoptic_quality"]


def main(minutes: float = 15, *weights: float) -> None:
    """Print the machine, then the mean scores of each boundary weight."""
    say_machine()
    for weight in weights or (10.0, 0.0):
        with tempfile.TemporaryDirectory() as folder:
            changes = {"max_minutes": minutes, "loss": {"boundary_weight": weight}}
            scores = run_example(Path(folder), "dsb2018", changes, SHOWN, masks={"instances": "components"})
        say("boundary", boundary_weight=weight, minutes=minutes, **scores)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
