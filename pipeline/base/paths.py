"""A project folder: which samples, batches and training pairs are in it, and where their files go.

The Snakefile and the stages that work on a whole set ask here, so that both see the same files. Samples are data: an
id is the path of a slide below the drop folder, without its suffix.
"""

from __future__ import annotations

# Where the results of a sample are; the rules under workflow/ write the same patterns (tested).
PLAN = "results/plans/{model}/{sample}.json"
MASK = "results/masks/{model}/{sample}.ome.tiff"
METRICS = "results/metrics/{model}/{sample}.csv"
OBJECTS = "results/objects/{model}/{sample}.csv"
ANNOTATIONS = "results/objects/{model}/{sample}.geojson"
APPEARANCE = "results/appearance/{sample}.json"
HISTORY = "results/models/{model}/history.csv"
WEIGHTS = "results/models/{model}/model.safetensors"
CARD = "results/models/{model}/model.json"
PROOF = "results/verification/{model}/{sample}.json"
VALIDATION = "results/validation/{model}.csv"
PREDICTION = "results/predictions/{model}/{batch}.zarr.zip"
SPEED = "results/predictions/{model}/{batch}.json"
WEIGH_LOG = "logs/weigh/{model}.log"
TRAIN_LOG = "logs/train/{model}.log"
TILE_LOG = "logs/tile/{model}/{sample}.log"
COMBINE_LOG = "logs/combine/{model}.log"
PREDICT_LOG = "logs/predict/{model}/{batch}.log"
STITCH_LOG = "logs/stitch/{model}/{sample}.log"
OBJECTS_LOG = "logs/objects/{model}/{sample}.log"
EVALUATE_LOG = "logs/evaluate/{model}/{sample}.log"
