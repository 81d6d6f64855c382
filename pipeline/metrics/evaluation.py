"""Compute all metrics of one mask and its reference: a row of numbers, in a stable order.

Both are first copied to a scratch folder as class maps and object ids in chunks; then blocks are read in any order, and
memory depends on the block, whatever the format of the reference. Pixels without annotation are in no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import (
    SQUARE_PX,
    Array,
    LazyArray,
    bands,
    below_each_other,
    blocks,
    distinct,
    lookup,
    part_of,
    rows_of,
)
from pipeline.masks.components import find_objects
from pipeline.masks.cut import cut
from pipeline.metrics import surface
from pipeline.metrics.boundaries import boundary_overlaps, merged_distances, surface_distances, with_cache
from pipeline.metrics.names import HEADLINE, POOLED, SURFACE, THRESHOLDS
from pipeline.metrics.objects import Overlaps, Partition, contingency, merge_shared, partition, shared_pixels
from pipeline.metrics.overlap import OVERLAP, Counts, confusion, mean_over_classes, per_class, pixel_accuracy, pooled
from pipeline.metrics.probability import ProbabilityCounts, average_precision, calibration_error, count_probabilities
from pipeline.runtime.parallel_blocks import in_order, map_and_merge
from pipeline.runtime.scratch import scratch_array
from pipeline.settings.schema import MetricsConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.labels import IGNORED, class_map, is_binary_mask, open_labels
from pipeline.slides.outlines import is_annotation
from pipeline.slides.planes import Plane
from pipeline.slides.slide import Slide, on_grid_of, open_plane, open_slide

Row = dict[str, float | int | str]
Meaning = Callable[[NDArray[Any]], NDArray[np.uint8]]

_BAND_PX = 2**22
_UNKNOWN_AS_BACKGROUND = np.where(np.arange(256) == IGNORED, 0, np.arange(256)).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """A truth or a prediction: its class map and its objects.

    Attributes
    ----------
    classes : (rows, columns) uint8 array
        Of a truth, :data:`pipeline.slides.labels.IGNORED` where it is not annotated.
    objects : (rows, columns) array of ids
        0 = background.
    count : int
        Number of objects; ids are 1 to ``count``.
    planes : int
        How many planes of a stack are below each other.
    """

    classes: Array
    objects: Array
    count: int
    planes: int = 1

    @classmethod
    def of_stack(cls, classes: Array, objects: Array, count: int) -> Self:
        """Put the planes of (planes, rows, columns) arrays below each other; no id is in two planes."""
        planes = classes.shape[0]
        tall = [below_each_other([part_of(stack, n) for n in range(planes)]) for stack in (classes, objects)]
        return cls(classes=tall[0], objects=tall[1], count=count, planes=planes)


@contextmanager
def open_reference(
    path: Path, shape: tuple[int, int], slide: Path, config: LabelConfig, *, memory_mb: int, plane: Plane
) -> Iterator[Slide]:
    """Open a reference of the shape of a mask, or bring it to the grid of the slide.

    Outlines, which training labels may be, are drawn on that grid.

    Parameters
    ----------
    shape : (rows, columns)
        Of the mask.
    slide : Path
        The image of the mask.
    plane : Plane
        The plane of the slide, and how it is read, which decides its grid.

    Raises
    ------
    SlideError
        If the reference has several channels, or a shape that fits neither mask nor slide, or other planes.
    """
    if is_annotation(path):
        with (
            open_slide(slide, memory_mb=memory_mb, view=plane.view) as image,
            open_labels(path, config, memory_mb=memory_mb, like=image) as drawn,
        ):
            yield drawn
        return
    with open_plane(path, memory_mb=memory_mb, plane=plane) as truth:
        if truth.shape == shape:
            yield truth
            return
        with open_slide(slide, memory_mb=memory_mb, view=plane.view) as image:
            picked = on_grid_of(image, truth)
        yield picked


def copy_mask(classes: Array, instances: Array | None, scratch: Path) -> LabelledImage:
    """Copy the class map and the object ids of a mask; without ids, its objects are the components of each class."""
    return _copy(classes, lambda band: band.astype(np.uint8), instances, scratch, no_object=[0])


def copy_reference(
    reference: Slide, config: LabelConfig, scratch: Path, *, inside: Array | None = None
) -> LabelledImage:
    """Copy a reference; its objects are the ids of ``kind: instances``, or the components of each class.

    Of a binary mask they are the components too.

    Parameters
    ----------
    inside : (1, rows, columns) array or None
        0 where it does not count: as if these pixels had not been annotated. None: it counts everywhere.
    """
    pixels: Array = reference.plane()
    has_ids = config.kind == "instances" and not is_binary_mask(reference, config)
    meaning: Meaning = partial(class_map, config=config, source=reference.path)
    no_object = [0] if config.ignored is None else [0, config.ignored]
    if inside is None:
        return _copy(pixels, meaning, pixels if has_ids else None, scratch, no_object=no_object)
    classes = cut(LazyArray(pixels.shape, np.dtype(np.uint8), lambda *key: meaning(pixels[key])), inside, IGNORED)
    ids = cut(pixels, inside, 0) if has_ids else None
    return _copy(classes, np.asarray, ids, scratch, no_object=no_object)


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
        Of one shape. Metrics of a stack are those of all pixels, boundaries and objects of its planes; no distance
        leads from one plane to another.
    pixel_size_um : (row, column) or None
        Distances are in µm with it, in px without.
    probabilities : (classes, rows, columns) float16 array or None
    """
    regions = list(blocks(truth.classes.shape))

    def count(region: tuple[slice, slice]) -> Counts:
        true, found = truth.classes[region], predicted.classes[region]
        unknown = np.bincount(found[true == IGNORED], minlength=len(classes))
        return np.vstack([confusion(true, found, num_classes=len(classes)), unknown])

    table = map_and_merge(count, regions, partial(np.sum, axis=0))
    counts, unknown = table[:-1], table[-1]
    known = predicted.classes if not unknown.any() else _known(predicted.classes, truth.classes)
    return (
        _amount_row(counts, unknown, classes)
        | _overlap_row(counts, classes)
        | _surface_row(truth, known, classes, config, pixel_size_um)
        | _object_row(truth, predicted, regions)
        | (_probability_row(truth.classes, probabilities, regions, classes) if probabilities is not None else {})
        | _confusion_row(counts, classes)
    )


def _known(predicted: Array, truth: Array) -> LazyArray:
    """Return a predicted class map without the pixels that are not annotated."""

    def read(*region: slice) -> NDArray[np.uint8]:
        return np.where(truth[region] == IGNORED, np.uint8(IGNORED), predicted[region])

    return LazyArray(predicted.shape, predicted.dtype, read)


def _amount_row(counts: Counts, unknown: Counts, classes: list[str]) -> Row:
    found = counts.sum(axis=0) + unknown
    row: Row = {"pixels": int(found.sum())}
    row |= {f"pixels_predicted_{label}": int(total) for label, total in zip(classes, found, strict=True)}
    return row | {"pixels_ignored": int(unknown.sum())}


def _overlap_row(counts: Counts, classes: list[str]) -> Row:
    row: Row = {"pixel_accuracy": pixel_accuracy(counts)}
    row[HEADLINE] = mean_over_classes(per_class("dice", counts)[1:])
    for name in OVERLAP:
        row |= _by_class(name, per_class(name, counts), classes)
        if name in POOLED:
            row[f"{name}_pooled"] = pooled(name, counts)
    return row


def _surface_row(
    truth: LabelledImage, predicted: Array, classes: list[str], config: MetricsConfig, pixel_size_um: PixelSize | None
) -> Row:
    spacing = pixel_size_um or (1.0, 1.0)
    tolerance = config.tolerance_px * float(np.mean(spacing))
    if pixel_size_um and config.tolerance_um:
        tolerance = config.tolerance_um
    width_px = surface.band_width_px(tolerance, spacing)
    planes = []
    for number in range(truth.planes):
        both = [with_cache(rows_of(labels, number, truth.planes)) for labels in (truth.classes, predicted)]
        apart = surface_distances(*both, num_classes=len(classes), spacing=spacing)
        planes.append((apart, boundary_overlaps(*both, num_classes=len(classes), width_px=width_px)))
    distances = merged_distances([apart for apart, _ in planes])
    overlaps = np.sum([shared for _, shared in planes], axis=0)
    values = [
        (
            surface.hausdorff95(*apart),
            surface.average_distance(*apart),
            surface.surface_dice(*apart, tolerance=tolerance),
            intersection / union if union else float("nan"),
        )
        for apart, (intersection, union) in zip(distances, overlaps.tolist(), strict=True)
    ]
    row: Row = {"distance_unit": "um" if pixel_size_um else "px", "tolerance": tolerance}
    for name, column in zip(SURFACE, np.transpose(values), strict=True):
        row |= _by_class(name, column, classes)
    return row


def compare_objects(
    truth: LabelledImage, predicted: LabelledImage, regions: list[tuple[slice, slice]]
) -> tuple[Overlaps, Partition]:
    """Return how the objects of both overlap, where it is annotated, and how well they divide the image.

    An object with pixels of the background and of another class is of the other class.
    """
    kinds = np.zeros(truth.count + 1, np.uint8), np.zeros(predicted.count + 1, np.uint8)  # class of each object
    unknown = truth.count + 1  # stands for the pixels that are not annotated

    def count(region: tuple[slice, slice]) -> NDArray[np.int64]:
        both = [np.asarray(image.objects[region]) for image in (truth, predicted)]
        classes = [np.asarray(image.classes[region]) for image in (truth, predicted)]
        for ids, of_pixels, kind in zip(both, classes, kinds, strict=True):
            kind[ids[of_pixels > 0]] = of_pixels[of_pixels > 0]
        return shared_pixels(np.where(classes[0] == IGNORED, unknown, both[0]), both[1])

    table = contingency(map_and_merge(count, regions, merge_shared), (unknown, predicted.count))
    known = table[:unknown]
    return Overlaps(known, kinds, table[[unknown]].toarray()[0]), partition(known)


def _object_row(truth: LabelledImage, predicted: LabelledImage, regions: list[tuple[slice, slice]]) -> Row:
    overlaps, divided = compare_objects(truth, predicted, regions)
    matchings = {threshold: overlaps.match(threshold) for threshold in THRESHOLDS}
    counted = matchings[0.5].matched + matchings[0.5].false_positive
    row: Row = {
        "objects_truth": truth.count,
        "objects_predicted": counted,
        "objects_ignored": predicted.count - counted,
        "objects_difference": counted - truth.count,
        **asdict(overlaps.errors()),
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
    return row | asdict(divided)


def _probability_row(truth: Array, probabilities: Array, regions: list[tuple[slice, slice]], classes: list[str]) -> Row:
    def count(region: tuple[slice, slice]) -> ProbabilityCounts:
        return count_probabilities(truth[region], np.asarray(probabilities[(slice(None), *region)]))

    counts = map_and_merge(count, regions, partial(reduce, add))
    row: Row = {"calibration_error": calibration_error(counts)}
    return row | _by_class("average_precision", average_precision(counts), classes)


def _confusion_row(counts: Counts, classes: list[str]) -> Row:
    row: Row = {f"pixels_truth_{label}": int(total) for label, total in zip(classes, counts.sum(axis=1), strict=True)}
    for true, line in zip(classes, counts, strict=True):
        row |= {f"pixels_{true}_as_{label}": int(value) for label, value in zip(classes, line, strict=True)}
    return row


def _by_class(name: str, values: NDArray[np.float64], classes: list[str]) -> Row:
    row: Row = {f"{name}_mean": mean_over_classes(values)}
    return row | {f"{name}_{label}": float(value) for label, value in zip(classes, values, strict=True)}


def _copy(
    labels: Array, meaning: Meaning, instances: Array | None, scratch: Path, *, no_object: list[int]
) -> LabelledImage:
    """Copy a class map, and an image of ids, which may be any numbers but ``no_object`` and become 1, 2, 3, ...

    Without such an image, objects are the components of each class.
    """
    classes = scratch_array(scratch / "classes", labels.shape, "uint8", chunks=SQUARE_PX)
    if instances is None:

        def copy_classes(rows: slice) -> None:
            classes[rows] = meaning(labels[rows])

        _on_bands(copy_classes, labels.shape)
        found, count = find_objects(lookup(classes, _UNKNOWN_AS_BACKGROUND), scratch=scratch)
        return LabelledImage(classes=classes, objects=found, count=count)
    ids = map_and_merge(lambda rows: distinct(instances[rows]), _bands(labels.shape), _unite)
    ids = np.setdiff1d(ids, no_object)
    objects = scratch_array(scratch / "objects", labels.shape, "uint32", chunks=SQUARE_PX)

    def copy_both(rows: slice) -> None:
        band = instances[rows]
        classes[rows] = meaning(band if labels is instances else labels[rows])
        for columns in bands(band.shape[1], SQUARE_PX[1]):  # searchsorted returns 64 bits a pixel
            part = band[:, columns]
            objects[rows, columns] = np.where(np.isin(part, no_object), 0, np.searchsorted(ids, part) + 1)

    _on_bands(copy_both, labels.shape)
    return LabelledImage(classes=classes, objects=objects, count=len(ids))


def _on_bands(copy: Callable[[slice], None], shape: tuple[int, ...]) -> None:
    """Copy every band in threads."""
    for _ in in_order(partial(copy, rows) for rows in _bands(shape)):
        pass


def _unite(ids: list[NDArray[Any]]) -> NDArray[Any]:
    return np.unique(np.concatenate(ids))


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of an image in bands of whole chunks."""
    return bands(shape[0], SQUARE_PX[0] * max(1, _BAND_PX // shape[1] // SQUARE_PX[0]))
