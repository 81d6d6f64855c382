"""Print the metrics of a project and where its results are: ``python config/examples/show.py projects/demo``."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

_RANKED = [
    "rank",
    "model",
    "samples",
    "foreground_dice",
    "sd_foreground_dice",
    "min_foreground_dice",
    "max_foreground_dice",
    "dice_mean",
    "train_minutes",
    "predict_mpx_per_s",
    "tiling",
    "tile_mismatch",
    "parameters",
]

_OBJECTS = ["objects_f1_50", "objects_f1_70", "objects_ap_50", "adapted_rand_error"]


def show(project: Path) -> None:
    """Print the table of the samples, then the places."""
    table = pd.read_csv(project / "results" / "metrics-all.csv")
    scores = [name for name in table.columns if name.startswith("dice_") and name != "dice_pooled"]
    shown = ["sample", "model", "status", "foreground_dice", *scores, *_OBJECTS, "flags"]
    print("\n" + table[shown].to_string(index=False, float_format="%.4f", na_rep=""))
    means = table.groupby("model")[["foreground_dice", *scores, *_OBJECTS]].mean().reset_index()
    print("\nmean of all samples\n" + means.to_string(index=False, float_format="%.4f", na_rep=""))
    ranking = pd.read_csv(project / "results" / "comparison.csv")
    if len(ranking) > 1:
        print("\n" + ranking[_RANKED].to_string(index=False, float_format="%.4f", na_rep=""))
    print(f"\n(empty: no reference)\nmasks   {project}/results/masks\nmetrics {project}/results/metrics.csv")
    print(f"report  {project}/results/report.html")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: show.py FOLDER")
    show(Path(sys.argv[1]))
