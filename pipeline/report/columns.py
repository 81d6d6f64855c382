"""The columns of results/metrics.csv, in their order, each with one sentence; docs/metrics.md is written from them."""

from __future__ import annotations

from pipeline.metrics.evaluation import POOLED, SURFACE
from pipeline.metrics.objects import THRESHOLDS
from pipeline.metrics.overlap import OVERLAP
from pipeline.report.page import Column

_ABOUT = {
    "dice": "2 |A and B| / (|A| + |B|)",
    "jaccard": "|A and B| / |A or B|",
    "precision": "share of the predicted pixels that are true",
    "recall": "share of the true pixels that were predicted",
    "specificity": "share of the pixels of other classes that were not predicted",
    "accuracy": "share of all pixels that are rightly of the class or not",
    "hausdorff95": "95th percentile of the distances between the boundaries, the larger of both directions",
    "surface_distance": "mean distance between the boundaries, over both of them",
    "surface_dice": "share of both boundaries within the tolerance of the other",
    "boundary_iou": "Jaccard of the bands along the inside of the boundaries, as wide as the tolerance",
}
_IDENTITY = [
    Column(name="sample", about="Path of the slide below the drop folder, without its suffix."),
    Column(name="model", about="Name of the network in the configuration."),
    Column(name="group", about="Group of the sample sheet: an animal, a patient, a field.", leading=False),
    Column(name="status", about="done, failed, or waiting for the next run.", leading=False),
    Column(
        name="stage",
        about="The stage that failed; `drop` where the drop folder has it and no stage could.",
        leading=False,
    ),
    Column(name="error_class", about="Class of the error; empty where a job left no reason.", leading=False),
    Column(name="error", about="Why it failed, or waits.", leading=False),
    Column(name="flags", about="What makes the sample doubtful, without a reference."),
]
_FOUND = [
    Column(name="objects", about="Objects in the mask.", digits=0),
    Column(name="median_area_px", about="Median area of the objects in the mask, in pixels.", digits=0, leading=False),
    Column(
        name="uncertain",
        about="Share of the pixels whose best class is less than three times as probable as the second.",
        digits=4,
        leading=False,
    ),
    Column(
        name="tile_mismatch",
        about="Share of the pixels seen by two windows that they label differently; empty for exact tiles.",
        digits=4,
        leading=False,
    ),
]
_OBJECTS = [
    Column(name="objects_truth", about="True objects.", digits=0, leading=False),
    Column(name="objects_predicted", about="Predicted objects.", digits=0, leading=False),
    Column(name="objects_difference", about="Predicted objects less true ones.", digits=0, leading=False),
    Column(name="panoptic_quality", about="Mean IoU of matched objects times F1, at 0.5.", digits=4, leading=False),
    Column(name="aggregated_jaccard", about="Jaccard of objects with their best partners.", digits=4, leading=False),
    Column(name="objects_ap_mean", about="Mean of objects_ap over all thresholds.", digits=4, leading=False),
]
_PARTITION = [
    Column(name="adapted_rand_error", about="1 - F1 of pairs of pixels in one object.", digits=4, leading=False),
    Column(name="voi_split", about="Bits lost by cutting true objects.", digits=4, leading=False),
    Column(name="voi_merge", about="Bits lost by joining true objects.", digits=4, leading=False),
]
_FILES = {
    "slide": "The slide.",
    "reference": "Its reference.",
    "mask": "Its mask.",
    "metrics": "Its own row of metrics.",
    "objects_table": "Its objects, one per row.",
    "annotations": "Its objects as QuPath reads them.",
    "log": "Log of the job that failed.",
    "version": "Version of Slidemill that measured.",
    "mask_sha256": "SHA-256 of the mask.",
    "reference_sha256": "SHA-256 of the reference.",
}


def columns(classes: list[str]) -> list[Column]:
    """Return all columns for these classes."""
    found = [*_IDENTITY, *_FOUND]
    found += [Column(name="pixels", about="Pixels of the slide.", digits=0, leading=False)]
    found += [Column(name="pixel_accuracy", about="Share of pixels with the right class.", digits=4, leading=False)]
    for name in OVERLAP:
        found += _by_class(name, classes)
        if name in POOLED:
            about = f"{name} of all pixels and classes together: {_ABOUT[name]}."
            found.append(Column(name=f"{name}_pooled", about=about, digits=4, leading=False))
    found.append(Column(name="distance_unit", about="um where the pixel size is known, else px.", leading=False))
    found.append(Column(name="tolerance", about="Distance within which boundaries agree.", digits=2, leading=False))
    for name in SURFACE:
        found += _by_class(name, classes)
    found += [*_OBJECTS, *_objects_by_threshold(), *_PARTITION]
    about = "Mean distance between how probable the best class is and how often it is right."
    found.append(Column(name="calibration_error", about=about, digits=4, leading=False))
    found += _by_class("average_precision", classes, "area under the precision-recall curve")
    found += [
        Column(name=f"pixels_{side}_{label}", about=f"Pixels of {label}, {side}.", digits=0, leading=False)
        for side in ("truth", "predicted")
        for label in classes
    ]
    found += [
        Column(name=f"pixels_{true}_as_{label}", about=f"Pixels of {true} labelled {label}.", digits=0, leading=False)
        for true in classes
        for label in classes
    ]
    return found + [Column(name=name, about=about, leading=False) for name, about in _FILES.items()]


def _by_class(name: str, classes: list[str], about: str | None = None) -> list[Column]:
    meaning = about or _ABOUT[name]
    mean = f"Mean over the classes that have a value: {meaning}."
    leading = name == "dice"
    return [Column(name=f"{name}_mean", about=mean, digits=4, leading=leading)] + [
        Column(name=f"{name}_{label}", about=f"Of {label}: {meaning}.", digits=4, leading=leading and index > 0)
        for index, label in enumerate(classes)
    ]


def _objects_by_threshold() -> list[Column]:
    found = []
    for percent in (round(100 * threshold) for threshold in THRESHOLDS):
        at = f"at an intersection over union of {percent} %"
        about = {
            "matched": f"Pairs of a true and a predicted object {at}.",
            "precision": f"Share of the predicted objects with a partner {at}.",
            "recall": f"Share of the true objects with a partner {at}.",
            "f1": f"Dice of the objects {at}.",
            "ap": f"Pairs per pair or lone object {at}.",
        }
        found += [
            Column(
                name=f"objects_{name}_{percent}",
                about=text,
                digits=0 if name == "matched" else 4,
                leading=(name, percent) == ("f1", 50),
            )
            for name, text in about.items()
        ]
    return found
