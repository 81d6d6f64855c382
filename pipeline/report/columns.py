"""The columns of results/metrics.csv, in their order, each with one sentence; docs/metrics.md is written from them."""

from __future__ import annotations

from functools import partial

from pipeline.metrics.evaluation import POOLED, SURFACE
from pipeline.metrics.objects import THRESHOLDS
from pipeline.metrics.overlap import OVERLAP
from pipeline.report.page.page_types import Column

_ABOUT = {
    "dice": "2 |A and B| / (|A| + |B|)",
    "jaccard": "|A and B| / |A or B|",
    "precision": "share of the predicted pixels that are true",
    "recall": "share of the true pixels that were predicted",
    "specificity": "share of the pixels of other classes that were not predicted",
    "accuracy": "share of all pixels that are correctly labelled as the class or as another one",
    "hausdorff95": "95th percentile of the distances between the boundaries, the larger of both directions",
    "surface_distance": "mean distance between the boundaries, over both of them",
    "surface_dice": "share of both boundaries within the tolerance of the other",
    "boundary_iou": "Jaccard of the bands along the inside of the boundaries, as wide as the tolerance",
}


_text = partial(Column, leading=False)
_count = partial(Column, digits=0, leading=False)
_value = partial(Column, digits=4, leading=False)

_SAMPLE = [
    _text("sample", "Path of the slide below the drop folder, without its suffix.", leading=True),
    _text("model", "Name of the network in the configuration.", leading=True),
    _text("group", "Group of the sample sheet: an animal, a patient, a field."),
    _text("status", "done, failed, or waiting for the next run."),
    _text("stage", "The stage that failed; `drop` if the drop folder refused the slide."),
    _text("error_class", "Class of the error; empty if the job left no error message."),
    _text("error", "Why it failed or waits."),
    _text("flags", "Quality warnings, found without a reference.", leading=True),
    _count("objects", "Objects in the mask.", leading=True),
    _count("median_area_px", "Median area of the objects in the mask, in pixels."),
    _value("uncertain", "Share of the pixels whose best class is less than three times as probable as the second."),
    _value("tile_mismatch", "Share of the pixels in two windows that they label differently; empty for exact tiles."),
]
_PIXELS = [
    _count("pixels", "Pixels of the slide."),
    _value("pixel_accuracy", "Share of the pixels with the right class."),
]
_DISTANCES = [
    _text("distance_unit", "um if the pixel size is known, else px."),
    _value("tolerance", "Distance within which boundaries agree.", digits=2),
]
_OBJECTS = [
    _count("objects_truth", "True objects."),
    _count("objects_predicted", "Predicted objects."),
    _count("objects_difference", "Number of predicted objects minus that of true ones."),
    _value("panoptic_quality", "Mean IoU of matched objects times F1, at 0.5."),
    _value("aggregated_jaccard", "Aggregated Jaccard index (AJI) of the objects."),
    _value("objects_ap_mean", "Mean of objects_ap over all thresholds."),
]
_PARTITION = [
    _value("adapted_rand_error", "1 - F1 of pairs of pixels in one object."),
    _value("voi_split", "Variation of information in bits: true objects that are split."),
    _value("voi_merge", "Variation of information in bits: true objects that are merged."),
]
_FILES = {
    "slide": "The slide.",
    "reference": "Its reference.",
    "mask": "Its mask.",
    "metrics": "Its own row of metrics.",
    "objects_table": "Its objects, one per row.",
    "annotations": "Its objects for QuPath.",
    "log": "Log of the job that failed.",
    "version": "Version of Slidemill that measured.",
    "mask_sha256": "SHA-256 of the mask.",
    "reference_sha256": "SHA-256 of the reference.",
}


def columns(classes: list[str]) -> list[Column]:
    """Return all columns for these classes."""
    found = [*_SAMPLE, *_PIXELS]
    for name in OVERLAP:
        found += _by_class(name, classes, _ABOUT[name])
        if name in POOLED:
            found.append(_value(f"{name}_pooled", f"{name} of all pixels and classes together: {_ABOUT[name]}."))
    found += _DISTANCES
    for name in SURFACE:
        found += _by_class(name, classes, _ABOUT[name])
    found += [*_OBJECTS, *_objects_by_threshold(), *_PARTITION]
    about = "Mean difference between the probability of the best class and how often it is right."
    found.append(_value("calibration_error", about))
    found += _by_class("average_precision", classes, "area under the precision-recall curve")
    for side in ("truth", "predicted"):
        found += [_count(f"pixels_{side}_{label}", f"Pixels of {label}, {side}.") for label in classes]
    for true in classes:
        found += [_count(f"pixels_{true}_as_{label}", f"Pixels of {true} labelled {label}.") for label in classes]
    return found + [_text(name, about) for name, about in _FILES.items()]


def _by_class(name: str, classes: list[str], meaning: str) -> list[Column]:
    mean = f"Mean over the classes that have a value: {meaning}."
    leading = name == "dice"
    return [_value(f"{name}_mean", mean, leading=leading)] + [
        _value(f"{name}_{label}", f"Of {label}: {meaning}.", leading=leading and index > 0)
        for index, label in enumerate(classes)
    ]


def _objects_by_threshold() -> list[Column]:
    found = []
    for percent in (round(100 * threshold) for threshold in THRESHOLDS):
        at = f"at an intersection over union of {percent} %"
        found += [
            _count(f"objects_matched_{percent}", f"Pairs of a true and a predicted object {at}."),
            _value(f"objects_precision_{percent}", f"Share of the predicted objects with a partner {at}."),
            _value(f"objects_recall_{percent}", f"Share of the true objects with a partner {at}."),
            _value(f"objects_f1_{percent}", f"Dice of the objects {at}.", leading=percent == 50),
            _value(f"objects_ap_{percent}", f"Pairs / (pairs + objects without a partner) {at}."),
        ]
    return found
