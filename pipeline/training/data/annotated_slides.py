"""Annotated slides of any size, opened lazily: pixels, labels and weight maps are read by region.

Opening a pair measures it band by band, so that all errors are reported before the training begins.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import models
from pipeline.base.arrays import Array, LazyArray, blocks
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.stage_sections import TrainConfig
from pipeline.slides.appearance import appearance, windows
from pipeline.slides.intensity import Statistics, measure_slide, normalize
from pipeline.slides.labels import open_labels, training_classes, warnings_of
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.tissue import Tissue, find_tissue
from pipeline.training.data.class_index import ClassIndex, index_classes
from pipeline.training.data.object_ids import ObjectSizes, measure_ids

log = logging.getLogger(__name__)

_KEPT_SHARE = 0.25  # of the memory budget, for decoded pairs
_CLASS_BYTES = 1  # per pixel
_MOST_PROBLEMS = 5  # in one message
_MOST_FOREGROUND, _TIMES_USUAL = 0.5, 3.0  # from where on a share of objects is far from the others
_MOST_USUAL = 0.85  # of one class beside the background; cells that fill the image leave more to their membranes


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """One annotated slide; its arrays are in memory, or read from their files by region.

    Attributes
    ----------
    image : (channels, rows, columns) float32 array
        Normalized with the statistics of the whole slide.
    classes : (rows, columns) uint8 array
        Class map; :data:`pipeline.slides.labels.IGNORED` means not annotated.
    maps : (1 + heads, rows, columns) float array
        Weight of each pixel in the loss, and the target of each head (:mod:`pipeline.training.data.head_targets`).
        For networks that detect objects, the last map is their ids (:mod:`pipeline.training.data.object_ids`).
    has_ids : bool
        Whether it is.
    appearance : dict
        Measurements of the slide before normalization.
    statistics : tuple of Statistics
        Of each channel, used for normalization; empty if the image was not normalized.
    white : float
        The intensity of white: the largest value of an integer type, the high percentile of floats.
    tissue : Tissue or None
        Where a stained slide has tissue.
    in_memory : bool
        Whether all arrays are in memory.
    warnings : tuple of str
        What is doubtful about how image and labels were read.
    """

    name: str
    image: Array
    classes: Array
    maps: Array
    appearance: dict[str, float] = field(default_factory=dict)
    statistics: tuple[Statistics, ...] = ()
    white: float = 1.0
    tissue: Tissue | None = None
    in_memory: bool = True
    has_ids: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape[1], self.image.shape[2]

    @cached_property
    def object_sizes(self) -> ObjectSizes:
        """Sizes of the objects, if there are ids; made on first use, by reading them once."""
        return measure_ids(LazyArray(self.shape, self.maps.dtype, lambda *key: np.asarray(self.maps[(-1, *key)])))

    @cached_property
    def class_index(self) -> ClassIndex:
        """Where each class is, without glass; made on first use, by reading all labels once."""
        index = index_classes(self.classes)
        return index.without_glass(self.tissue) if self.tissue else index


def open_pairs(
    pairs: Sequence[TrainingPair], weight_maps: Path, *, memory_mb: int, config: TrainConfig
) -> list[Annotated]:
    """Open training pairs, and their weight maps with the targets of heads, in the folder ``weight_maps``.

    A pair is kept decoded in memory if it takes no more than its share of a quarter of ``memory_mb``.

    Raises
    ------
    SlidemillError
        If any pair cannot be used; up to five are named in the message.
    """
    share_bytes = _KEPT_SHARE * memory_mb * 10**6 / len(pairs)
    opened, problems = [], []
    for pair in pairs:
        try:
            opened.append(_open(pair, weight_maps / f"{pair.name}.tif", memory_mb, config, share_bytes))
        except SlidemillError as error:
            problems.append(str(error))
    if len(problems) == 1:
        raise SlidemillError(problems[0])
    if problems:
        named = "; ".join(f"({number}) {text}" for number, text in enumerate(problems[:_MOST_PROBLEMS], start=1))
        raise SlidemillError(f"{len(problems)} of {len(pairs)} training images cannot be used: {named}")
    for annotated, warning in [(one, warning) for one in opened for warning in one.warnings]:
        log.warning("training image %s: %s", annotated.name, warning)
    log.info("%d of %d annotated images are kept in memory", sum(pair.in_memory for pair in opened), len(opened))
    return opened


def check_classes(training: Sequence[Annotated], held_back: Sequence[Annotated], classes: Sequence[str]) -> list[str]:
    """Return warnings about images whose share of objects is far from that of the others, or from any: inverted labels?

    Raises
    ------
    SlidemillError
        If a class has no pixel in any training image, or only in those that are held back.
    """
    for index, name in enumerate(classes):
        if any(_has_class(one, index) for one in training):
            continue
        only = [one.name for one in held_back if _has_class(one, index)]
        raise SlidemillError(
            f"class {name!r} has no pixel in any training image"
            + (f", only in those that are held back ({', '.join(only[:_MOST_PROBLEMS])})" if only else "")
            + "; annotate it there, or remove it from `classes`"
        )
    everything = [*training, *held_back]
    shares = [_foreground_share(one.class_index) for one in everything]
    usual = float(np.median(shares))
    if len(classes) == 2 and usual > _MOST_USUAL:
        return [f"all images: {usual:.0%} of them is not {classes[0]}; are labels inverted, with 0 for objects?"]
    return [
        f"{one.name}: {share:.0%} of it is not {classes[0]}, usual are {usual:.0%}; are its labels inverted?"
        for one, share in zip(everything, shares, strict=True)
        if share > max(_MOST_FOREGROUND, _TIMES_USUAL * usual)
    ]


def _has_class(annotated: Annotated, index: int) -> bool:
    """Return whether a class occurs; the index of a stained slide leaves out background on glass."""
    return index in annotated.class_index.counts or (index == 0 and annotated.tissue is not None)


def _foreground_share(index: ClassIndex) -> float:
    counts = {of_class: int(cells.sum()) for of_class, cells in index.counts.items()}
    total = sum(counts.values())
    return 1 - counts.get(0, 0) / total if total else 0.0


def _open(pair: TrainingPair, weight_map: Path, memory_mb: int, config: TrainConfig, share_bytes: float) -> Annotated:
    with open_slide(pair.image, memory_mb=memory_mb, view=config.image) as slide:
        dtype = slide.levels[0].dtype
        shape = (slide.channels, *slide.shape)
        pixels: Array = LazyArray(shape, dtype, partial(_read_pixels, pair, config, memory_mb))
        classes: Array = LazyArray(slide.shape, np.dtype(np.uint8), partial(_read_classes, pair, config, memory_mb))
        maps = _open_maps(weight_map, slide.shape, memory_mb, config)
        of_pixel = slide.channels * dtype.itemsize + _CLASS_BYTES + maps.shape[0] * maps.dtype.itemsize
        if is_small := slide.shape[0] * slide.shape[1] * of_pixel <= share_bytes:
            pixels, classes, maps = slide.read_all(), classes[:], maps[:]

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            return pixels[:, rows, columns] if is_small else slide.read(rows, columns)

        statistics = _statistics(replace(slide, levels=(pixels,)) if is_small else slide)
        annotated = Annotated(
            name=pair.name,
            image=LazyArray(shape, np.dtype(np.float32), partial(_read_normalized, pixels, statistics)),
            classes=classes,
            maps=maps,
            appearance=appearance([read(rows, columns) for rows, columns in windows(slide.shape)]),
            statistics=statistics,
            white=float(np.iinfo(dtype).max) if dtype.kind in "ui" else max(one.high for one in statistics),
            tissue=find_tissue(slide),
            in_memory=is_small,
            has_ids=models.detects_objects(config.model.architecture),
            warnings=_warnings(pair, slide, config, memory_mb),
        )
    _check_labels(annotated, pair, config)
    return annotated


def _warnings(pair: TrainingPair, slide: Slide, config: TrainConfig, memory_mb: int) -> tuple[str, ...]:
    with open_labels(pair.labels, config.labels, memory_mb=memory_mb, like=slide) as labels:
        return (*slide.inspect(), *(f"its labels: {warning}" for warning in warnings_of(labels, config.labels)))


# Files are opened for each read, so that any process can read them.


def _read_pixels(
    pair: TrainingPair, config: TrainConfig, memory_mb: int, channels: slice, rows: slice, columns: slice
) -> NDArray[Any]:
    with open_slide(pair.image, memory_mb=memory_mb, view=config.image) as slide:
        return slide.read(rows, columns)[channels]


def _read_normalized(pixels: Array, statistics: tuple[Statistics, ...], *key: slice) -> NDArray[np.float32]:
    return normalize(pixels[key], list(statistics))


def _read_classes(
    pair: TrainingPair, config: TrainConfig, memory_mb: int, rows: slice, columns: slice
) -> NDArray[np.uint8]:
    with (
        open_slide(pair.image, memory_mb=memory_mb, view=config.image) as slide,
        open_labels(pair.labels, config.labels, memory_mb=memory_mb, like=slide) as labels,
    ):
        plane = labels.read(slice(rows.start, rows.stop + 1), slice(columns.start, columns.stop + 1))[0]
    classes = training_classes(plane, config.labels, source=pair.labels)
    return classes[: rows.stop - rows.start, : columns.stop - columns.start]


def _open_maps(path: Path, shape: tuple[int, int], memory_mb: int, config: TrainConfig) -> Array:
    """Return the maps of an image as an array, after a look at its file."""
    more = len(config.model.heads.names) + models.detects_objects(config.model.architecture)
    with open_slide(path, memory_mb=memory_mb) as maps:
        if maps.channels != 1 + more:
            raise SlidemillError(
                f"{path}: has {maps.channels - 1} heads, this training {more}; run snakemake --until weigh"
            )
        return LazyArray((1 + more, *shape), maps.levels[0].dtype, partial(_read_maps, path, memory_mb))


def _read_maps(path: Path, memory_mb: int, channels: slice, rows: slice, columns: slice) -> NDArray[Any]:
    with open_slide(path, memory_mb=memory_mb) as maps:
        return maps.read(rows, columns)[channels]


def _statistics(slide: Slide) -> tuple[Statistics, ...]:
    statistics = measure_slide(slide)
    if slide.levels[0].dtype.kind == "f":  # of a large image, a sample was measured
        for region in blocks(slide.shape):
            if not np.isfinite(slide.read(*region)).all():
                raise SlideError(f"{slide.path}: pixels are NaN or infinite; replace them")
    if all(channel.minimum == channel.maximum for channel in statistics):
        values = ", ".join(f"{channel.minimum:g}" for channel in statistics)
        raise SlideError(f"{slide.path}: the image is constant, all pixels are {values}; there is nothing to learn")
    return tuple(statistics)


def _check_labels(annotated: Annotated, pair: TrainingPair, config: TrainConfig) -> None:
    """Refuse labels without annotation; reads, and so checks, all values."""
    found = index_classes(annotated.classes).classes if annotated.tissue else annotated.class_index.classes
    if not found:
        raise SlideError(f"{pair.labels}: no pixel is annotated; annotate some, or remove the file and its image")
    if found == [0] and not config.allow_empty:
        raise SlideError(
            f"{pair.labels}: nothing but {config.labels.classes[0]} is annotated; annotate the rest, or set "
            "training.allow_empty if there is nothing to find"
        )
