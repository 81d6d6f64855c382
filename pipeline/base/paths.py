"""Where the files of a project lie, relative to its folder: the rules, the stages and docs/contracts.md use these.

Words in braces are wildcards of Snakemake, and places for ``str.format``.
"""

from __future__ import annotations

SLIDES = "results/slides.json"
WEIGHT_MAPS = "results/weight_maps/{model}"
WEIGHT_MAP = f"{WEIGHT_MAPS}/{{name}}.tif"
NETWORK = "results/models/{model}/model.safetensors"
CARD = "results/models/{model}/model.json"
HISTORY = "results/models/{model}/history.csv"
KEPT = "results/models/{model}/kept/{identity}"  # every network that was trained, with its card and history
# Of each image that was held back: Dice in held_back.json, pictures by their names in PICTURE
HELD_BACK = "results/models/{model}/held_back"
TRAINING = "results/models/{model}/training"  # what a training needs to go on
BATCH_PX = "results/models/{model}/batch_px.json"  # how many pixels a GPU takes at once
VALIDATION = "results/validation/{model}.csv"
PLANS = "results/plans/{model}"
PLAN = f"{PLANS}/{{sample}}.json"
PREDICTION = "results/predictions/{model}/{sample}.zarr.zip"
# Of a stack whose planes are segmented one by one: a prediction of each, and what was measured on it
PLANES = "results/predictions/{model}/{sample}.planes"
PLANE_PREDICTION = f"{PLANES}/{{plane}}.zarr.zip"
PLANE_MEASURED = f"{PLANES}/{{plane}}.json"
MASK = "results/masks/{model}/{sample}.ome.tiff"
SCORES = "results/masks/{model}/{sample}.scores.csv"  # of the objects of a network that detects them
OBJECTS = "results/objects/{model}/{sample}.csv"
ANNOTATIONS = "results/objects/{model}/{sample}.geojson"
REGIONS = "results/regions/{model}/{sample}.csv"
TISSUE = "results/tissue/{model}/{sample}.geojson"
METRICS = "results/metrics/{model}/{sample}.csv"
# Small pictures for the page, by what they show
PICTURE = {
    name: f"results/pictures/{{model}}/{{sample}}.{name}.{suffix}"
    for name, suffix in {
        "image": "webp",
        **dict.fromkeys(("predicted", "predicted_outlines", "marks", "truth", "truth_outlines", "error"), "png"),
    }.items()
}
LEDGERS = "results/ledgers"
LEDGER = f"{LEDGERS}/{{stage}}/{{model}}/{{batch}}.json"
NETWORK_LEDGER = f"{LEDGERS}/{{stage}}/{{model}}.json"
DONE = "results/done.json"
VERIFICATION = "results/verification/{model}/{sample}.json"

# What the report makes, all of it in one folder
REPORT = "results"
METRICS_TABLE = f"{REPORT}/metrics.csv"
ALL_METRICS = f"{REPORT}/metrics-all.csv"
COLUMNS = f"{REPORT}/columns.csv"
SUMMARY = f"{REPORT}/summary.csv"
ALL_OBJECTS = f"{REPORT}/objects.csv"
ALL_REGIONS = f"{REPORT}/regions.csv"
COMPARISON = f"{REPORT}/comparison.csv"
COHORT = f"{REPORT}/cohort.csv"
PAIRED = f"{REPORT}/paired.csv"
FOLDS = f"{REPORT}/folds.csv"
FIGURE = f"{REPORT}/figures/{{figure}}.svg"
PAGE = f"{REPORT}/report.html"
PROVENANCE = f"{REPORT}/provenance.json"
FINISHED = f"{REPORT}/finished.txt"

_JOBS = {
    **dict.fromkeys(("weigh", "train", "validate", "combine"), "/{model}"),
    **dict.fromkeys(("tile", "predict", "stitch", "objects", "evaluate"), "/{model}/{batch}"),
    "verify": "/{model}/{sample}",
    **dict.fromkeys(("report", "finish"), ""),
}
# Of each job, by its stage: what it logged; its time and memory, measured by Snakemake
LOG = {stage: f"logs/{stage}{job}.log" for stage, job in _JOBS.items()}
BENCHMARK = {stage: f"benchmarks/{stage}{job}.tsv" for stage, job in _JOBS.items()}
