"""Compute all metrics of one mask and its reference: a row of numbers, in a stable order.

Both are first copied to a scratch folder as class maps and object ids in chunks; then blocks are read in any order, and
memory depends on the block, whatever the format of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import SQUARE_PX, Array, bands, blocks
from pipeline.base.errors import SlideError
from pipeline.masks.instances import find_objects
from pipeline.metrics import surface
from pipeline.metrics.objects import THRESHOLDS, Overlaps, contingency, merge_shared, partition, shared_pixels
from pipeline.metrics.overlap import OVERLAP, Counts, confusion, mean_over_classes, per_class, pixel_accuracy, pooled
from pipeline.metrics.parallel_blocks import map_and_merge
from pipeline.metrics.probability import ProbabilityCounts, average_precision, calibration_error, count_probabilities
from pipeline.runtime.scratch import scratch_array
from pipeline.settings.schema import ImageConfig, MetricsConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.labels import IGNORED, class_map, open_labels
from pipeline.slides.outlines import is_annotation
from pipeline.slides.slide import Slide, on_grid_of, open_plane, open_slide

Row = dict[str, float | int | str]
Meaning = Callable[[NDArray[Any]], NDArray[np.uint8]]

POOLED = ("dice", "jaccard")
SURFACE = ("hausdorff95", "surface_distance", "surface_dice", "boundary_iou")

_BAND_PX = 2**22


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """A truth or a prediction: its class map and its objects.

    Attributes
    ----------
    classes : (rows, columns) uint8 array
    objects : (rows, columns) array of ids
        0 = background.
    count : int
        Number of objects; ids are 1 to ``count``.
    """

    classes: Array
    objects: Array
    count: int


@contextmanager
def open_reference(
    path: Path, shape: tuple[int, int], slide: Path, config: LabelConfig, *, memory_mb: int, view: ImageConfig
) -> Iterator[Slide]:
    """Open a reference of the shape of a mask, or bring it to the grid of the slide.

    Outlines, which training labels may be, are drawn on that grid.

    Parameters
    ----------
    shape : (rows, columns)
        Of the mask.
    slide : Path
        The image of the mask; its grid is that of ``view``.

    Raises
    ------
    SlideError
        If the reference has several channels, or a shape that fits neither mask nor slide.
    """
    if is_annotation(path):
        with (
            open_slide(slide, memory_mb=memory_mb, view=view) as image,
            open_labels(path, config, memory_mb=memory_mb, like=image) as drawn,
        ):
            yield drawn
        return
    with open_plane(path, memory_mb=memory_mb) as truth:
        if truth.shape == shape:
            yield truth
            return
        with open_slide(slide, memory_mb=memory_mb, view=view) as image:
            picked = on_grid_of(image, truth)
        yield picked


def copy_mask(classes: Array, instances: Array | None, scratch: Path) -> LabelledImage:
    """Copy the class map and the object ids of a mask; without ids, its objects are the components of each class."""
    return _copy(classes, lambda band: band.astype(np.uint8), instances, scratch)


def copy_reference(reference: Slide, config: LabelConfig, scratch: Path) -> LabelledImage:
    """Copy a reference; its objects are the ids of ``kind: instances``, or the components of each class."""

    def meaning(band: NDArray[Any]) -> NDArray[np.uint8]:
        classes = class_map(band, config, source=reference.path)
        if (classes == IGNORED).any():
            raise SlideError(
                f"{reference.path}: some pixels are not annotated (training.ignored); annotate all of a reference"
            )
        return classes

    pixels = reference.plane()
    return _copy(pixels, meaning, pixels if config.kind == "instances" else None, scratch)


def measure(
    truth: LabelledImage,
    predicted: LabelledImage,
    *,
    classes: list[str],
    config: MetricsConfig,
    pixel_size_um: PixelSize | None,
    probabilities: Array | None,
) -> Row:
    """Return every metric of one sample by the name of its column; NaN if it has no value.

    Parameters
    ----------
    truth, predicted : LabelledImage
        Of one shape.
    pixel_size_um : (row, column) or None
        Distances are in µm with it, in px without.
    probabilities : (classes, rows, columns) float16 array or None
    """
    regions = list(blocks(truth.classes.shape))

    def count(region: tuple[slice, slice]) -> Counts:
        return confusion(truth.classes[region], predicted.classes[region], num_classes=len(classes))

    counts = map_and_merge(count, regions, partial(np.sum, axis=0))
    return (
        _overlap_row(counts, classes)
        | _surface_row(truth.classes, predicted.classes, classes, config, pixel_size_um)
        | _object_row(truth, predicted, regions)
        | (_probability_row(truth.classes, probabilities, regions, classes) if probabilities is not None else {})
        | _count_row(counts, classes)
    )


def _overlap_row(counts: Counts, classes: list[str]) -> Row:
    row: Row = {"pixels": int(counts.sum()), "pixel_accuracy": pixel_accuracy(counts)}
    for name in OVERLAP:
        row |= _by_class(name, per_class(name, counts), classes)
        if name in POOLED:
            row[f"{name}_pooled"] = pooled(name, counts)
    return row


def _surface_row(
    truth: Array, predicted: Array, classes: list[str], config: MetricsConfig, pixel_size_um: PixelSize | None
) -> Row:
    spacing = pixel_size_um or (1.0, 1.0)
    tolerance = config.tolerance_px * float(np.mean(spacing))
    if pixel_size_um and config.tolerance_um:
        tolerance = config.tolerance_um
    width_px = max(1, round(tolerance / float(np.mean(spacing))))
    values = []
    for index in range(len(classes)):
        both = surface.surface_distances(truth, predicted, index, spacing=spacing)
        intersection, union = surface.boundary_overlap(truth, predicted, index, width_px=width_px)
        values.append(
            (
                surface.hausdorff95(*both),
                surface.average_distance(*both),
                surface.surface_dice(*both, tolerance=tolerance),
                intersection / union if union else float("nan"),
            )
        )
    row: Row = {"distance_unit": "um" if pixel_size_um else "px", "tolerance": tolerance}
    for name, column in zip(SURFACE, np.transpose(values), strict=True):
        row |= _by_class(name, column, classes)
    return row


def _object_row(truth: LabelledImage, predicted: LabelledImage, regions: list[tuple[slice, slice]]) -> Row:
    kinds = np.zeros(truth.count + 1, np.uint8), np.zeros(predicted.count + 1, np.uint8)  # class of each object

    def count(region: tuple[slice, slice]) -> NDArray[np.int64]:
        both = [np.asarray(image.objects[region]) for image in (truth, predicted)]
        for image, ids, kind in zip((truth, predicted), both, kinds, strict=True):
            kind[ids] = image.classes[region]
        return shared_pixels(*both)

    table = contingency(map_and_merge(count, regions, merge_shared), (truth.count, predicted.count))
    overlaps = Overlaps(table, kinds)
    matchings = {threshold: overlaps.match(threshold) for threshold in THRESHOLDS}
    row: Row = {
        "objects_truth": truth.count,
        "objects_predicted": predicted.count,
        "objects_difference": predicted.count - truth.count,
        "panoptic_quality": matchings[0.5].panoptic_quality,
        "aggregated_jaccard": overlaps.aggregated_jaccard(),
        "objects_ap_mean": float(np.mean([matching.average_precision for matching in matchings.values()])),
    }
    for threshold, matching in matchings.items():
        percent = round(100 * threshold)
        row |= {
            f"objects_matched_{percent}": matching.matched,
            f"objects_precision_{percent}": matching.precision,
            f"objects_recall_{percent}": matching.recall,
            f"objects_f1_{percent}": matching.f1,
            f"objects_ap_{percent}": matching.average_precision,
        }
    return row | asdict(partition(table))


def _probability_row(truth: Array, probabilities: Array, regions: list[tuple[slice, slice]], classes: list[str]) -> Row:
    def count(region: tuple[slice, slice]) -> ProbabilityCounts:
        return count_probabilities(truth[region], np.asarray(probabilities[(slice(None), *region)]))

    counts = map_and_merge(count, regions, partial(reduce, add))
    row: Row = {"calibration_error": calibration_error(counts)}
    return row | _by_class("average_precision", average_precision(counts), classes)


def _count_row(counts: Counts, classes: list[str]) -> Row:
    row: Row = {f"pixels_truth_{label}": int(total) for label, total in zip(classes, counts.sum(axis=1), strict=True)}
    row |= {f"pixels_predicted_{label}": int(total) for label, total in zip(classes, counts.sum(axis=0), strict=True)}
    for true, line in zip(classes, counts, strict=True):
        row |= {f"pixels_{true}_as_{label}": int(value) for label, value in zip(classes, line, strict=True)}
    return row


def _by_class(name: str, values: NDArray[np.float64], classes: list[str]) -> Row:
    row: Row = {f"{name}_mean": mean_over_classes(values)}
    return row | {f"{name}_{label}": float(value) for label, value in zip(classes, values, strict=True)}


def _copy(labels: Array, meaning: Meaning, instances: Array | None, scratch: Path) -> LabelledImage:
    """Copy a class map, and an image of ids, which may be any numbers and become 1, 2, 3, ...

    Without such an image, objects are the components of each class.
    """
    classes = scratch_array(scratch / "classes", labels.shape, "uint8", chunks=SQUARE_PX)
    if instances is None:
        for rows in _bands(labels.shape):
            classes[rows] = meaning(labels[rows])
        found, count = find_objects(classes, scratch=scratch)
        return LabelledImage(classes=classes, objects=found, count=count)
    ids = np.unique(np.concatenate([np.unique(instances[rows]) for rows in _bands(labels.shape)]))
    ids = ids[ids != 0]
    objects = scratch_array(scratch / "objects", labels.shape, "uint32", chunks=SQUARE_PX)
    for rows in _bands(labels.shape):
        band = instances[rows]
        classes[rows] = meaning(band if labels is instances else labels[rows])
        for columns in bands(band.shape[1], SQUARE_PX[1]):  # searchsorted returns 64 bits a pixel
            part = band[:, columns]
            objects[rows, columns] = np.where(part == 0, 0, np.searchsorted(ids, part) + 1)
    return LabelledImage(classes=classes, objects=objects, count=len(ids))


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of an image in bands of whole chunks."""
    return bands(shape[0], SQUARE_PX[0] * max(1, _BAND_PX // shape[1] // SQUARE_PX[0]))
