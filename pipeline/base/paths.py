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
VALIDATION = "results/validation/{model}.csv"
PLANS = "results/plans/{model}"
PLAN = f"{PLANS}/{{sample}}.json"
PREDICTION = "results/predictions/{model}/{batch}.zarr.zip"
SPEED = "results/predictions/{model}/{batch}.json"
MASK = "results/masks/{model}/{sample}.ome.tiff"
OBJECTS = "results/objects/{model}/{sample}.csv"
ANNOTATIONS = "results/objects/{model}/{sample}.geojson"
APPEARANCE = "results/appearance/{sample}.json"
METRICS = "results/metrics/{model}/{sample}.csv"
VERIFICATION = "results/verification/{model}/{sample}.json"

# What the report makes, all of it in one folder
REPORT = "results"
ALL_METRICS = f"{REPORT}/metrics.csv"
COMPARISON = f"{REPORT}/comparison.csv"
COHORT = f"{REPORT}/cohort.csv"
PAIRED = f"{REPORT}/paired.csv"
FOLDS = f"{REPORT}/folds.csv"
FIGURE = f"{REPORT}/figures/{{figure}}.svg"
PAGE = f"{REPORT}/report.html"
PROVENANCE = f"{REPORT}/provenance.json"

_JOBS = {
    **dict.fromkeys(("weigh", "train", "validate", "combine"), "/{model}"),
    **dict.fromkeys(("tile", "stitch", "objects", "evaluate", "verify"), "/{model}/{sample}"),
    "predict": "/{model}/{batch}",
    "inspect": "/{sample}",
    "report": "",
}
# Of each job, by its stage: what it logged; its time and memory, measured by Snakemake
LOG = {stage: f"logs/{stage}{job}.log" for stage, job in _JOBS.items()}
BENCHMARK = {stage: f"benchmarks/{stage}{job}.tsv" for stage, job in _JOBS.items()}
