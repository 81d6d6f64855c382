"""The columns of results/metrics-all.csv, in their order, with a sentence each; docs/metrics.md is made of them."""

from __future__ import annotations

from functools import partial

from pipeline.metrics.names import HEADLINE, POOLED, SURFACE, THRESHOLDS
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
    _text("stage", "The stage that failed; drop if the drop folder refused the slide."),
    _text("error_class", "Class of the error; empty if the job did not end."),
    _text("error", "Why it failed or waits."),
    _text("flags", "Warnings: what is doubtful about slide, reference and mask.", leading=True),
    _text("learned", "yes if the network was trained on this image: then it is in no mean, ranking or test."),
    _count("objects", "Objects in the mask.", leading=True),
    _count("median_area_px", "Median area of the objects in the mask, in pixels."),
    _value("median_area_um2", "The same in µm²; empty if the pixel size is not known.", digits=2),
    _value("uncertain", "Share of the pixels whose best class is less than three times as probable as the second."),
    _value("tile_mismatch", "Share of the pixels in two windows that they label differently; empty for exact tiles."),
]
_SHORT = ["sample", "model", "group", "status", "flags", "objects"]
_PIXELS = [
    _count("pixels_ignored", "Pixels without annotation (training.ignored): they are in no metric."),
    _value("pixel_accuracy", "Share of the pixels with the right class."),
    _value(HEADLINE, "Mean Dice of the foreground: of all classes but the first, that have a value.", leading=True),
]
_DISTANCES = [
    _text("distance_unit", "um if the pixel size is known, else px."),
    _value("tolerance", "Distance within which boundaries agree.", digits=2),
]
_OBJECTS = [
    _count("objects_truth", "True objects."),
    _count("objects_predicted", "Predicted objects that count: all but the ignored ones."),
    _count("objects_ignored", "Predicted objects without a partner at 50 %, mostly in pixels without annotation."),
    _count("objects_difference", "Number of predicted objects that count minus that of true ones."),
    _count("objects_merged", "Predicted objects in which two or more true ones lie with more than half of their area."),
    _count("objects_split", "True objects in which two or more predicted ones lie with more than half of their area."),
    _count("objects_missed", "True objects of which at most half is in predicted objects."),
    _count("objects_spurious", "Predicted objects of which at most half is in true ones, without the ignored ones."),
    _value("panoptic_quality", "Mean IoU of matched objects times F1, at 0.5; of the objects of all classes together."),
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
    found = [*_SAMPLE, *amounts(classes), *_PIXELS]
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
    found += [_count(f"pixels_truth_{label}", f"Pixels of {label} in the reference.") for label in classes]
    for true in classes:
        found += [_count(f"pixels_{true}_as_{label}", f"Pixels of {true} labelled {label}.") for label in classes]
    return found + [_text(name, about) for name, about in _FILES.items()]


def short_columns(classes: list[str]) -> list[str]:
    """Return the columns of results/metrics.csv: those of the columns of all metrics that fit a screen."""
    scores = [f"{name}_{label}" for name in ("dice", "jaccard") for label in ("mean", *classes)]
    return [*_SHORT, HEADLINE, *scores, "objects_f1_50", "error"]


def amounts(classes: list[str]) -> list[Column]:
    """Return what there is of each class in a mask; known without a reference."""
    found = [_count("pixels", "Pixels of the slide.")]
    found += [_count(f"pixels_predicted_{label}", f"Pixels of {label} in the mask.") for label in classes]
    found += [_value(f"share_{label}", f"Pixels of {label} in the mask / pixels of the slide.") for label in classes]
    about = "in the mask, in µm²; empty if the pixel size is not known"
    found += [_value(f"area_um2_{label}", f"Area of {label} {about}.", digits=2) for label in classes]
    return found + [_count(f"count_{label}", f"Objects of {label} in the mask.") for label in classes[1:]]


def _by_class(name: str, classes: list[str], meaning: str) -> list[Column]:
    """Only Dice leads: Jaccard follows from it, and three classes are to fit the page."""
    mean = f"Mean over the classes that have a value, with the background: {meaning}."
    return [_value(f"{name}_mean", mean)] + [
        _value(f"{name}_{label}", f"Of {label}: {meaning}.", leading=name == "dice" and index > 0)
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
