"""A project folder: which samples, batches and training pairs are in it, and where their files go.

The Snakefile and the stages that work on a whole set ask here, so that both see the same files. Samples are data: an
id is the path of a slide below the drop folder, without its suffix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import SlidemillError
from pipeline.image_files import SUFFIXES, find_images, find_labels

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

_TOLD = 5  # problems told at once
_WITH_PROBABILITIES = "-probabilities"


def folder_of(sample: str) -> str:
    """Return the folder a sample was dropped in, or itself where it was dropped alone."""
    parent = str(PurePosixPath(sample).parent)
    return sample if parent == "." else parent


def name_batch(folder: str, versions: Mapping[str, str], *, probabilities: bool) -> str:
    """Return the id of a new batch: ``folder/HASH``, other slides or versions of them have another one.

    Parameters
    ----------
    folder : str
        What its slides have in common.
    versions : mapping of str
        Of every sample in it.
    probabilities : bool
        Whether its predictions have them; those without cannot stand in for them.
    """
    content = json.dumps(sorted(versions.items()))
    mark = _WITH_PROBABILITIES if probabilities else ""
    return f"{folder}/{hashlib.sha256(content.encode()).hexdigest()[:12]}{mark}"


def has_probabilities(batch: str) -> bool:
    """Return whether the predictions of a batch have probabilities beside the labels."""
    return batch.endswith(_WITH_PROBABILITIES)


@dataclass(frozen=True, kw_only=True)
class TrainingPair:
    """A training image and its labels (``name`` is their common path below the two folders, without suffix)."""

    name: str
    image: Path
    labels: Path


def find_pairs(images: Path, labels: Path) -> list[TrainingPair]:
    """Return the training pairs, sorted by name.

    Raises
    ------
    SlidemillError
        If there is no pair, or images have no labels.
    """
    image_of, label_of = find_images(images), find_labels(labels)
    if missing := [name for name in image_of if name not in label_of]:
        names = ", ".join(missing[:_TOLD]) + (", ..." if len(missing) > _TOLD else "")
        others = f"; {len(missing)} of {len(image_of)} images have none: {names}" if len(missing) > 1 else ""
        raise SlidemillError(
            f"{image_of[missing[0]]}: no label image {missing[0]}.tif or .png in {labels}, nor outlines "
            f"(.geojson, .roi, .zip); add it, or remove the image{others}"
        )
    pairs = [TrainingPair(name=name, image=image, labels=label_of[name]) for name, image in image_of.items()]
    if not pairs:
        raise SlidemillError(
            f"no training images in {images} (suffixes: {', '.join(SUFFIXES)}); "
            "add annotated images, or configure a checkpoint"
        )
    return pairs
