"""Annotated slides of any size, opened lazily: pixels, labels and weight maps are read by region.

Opening a pair measures it band by band, so that all errors are reported before the training begins.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.stage_sections import TrainConfig
from pipeline.slides.appearance import appearance, windows
from pipeline.slides.intensity import Statistics, measure_intensities, normalize, row_bands
from pipeline.slides.labels import open_labels, training_classes
from pipeline.slides.slide import Slide, open_slide
from pipeline.tiling.tissue import Tissue, find_tissue
from pipeline.training.data.class_index import ClassIndex, index_classes

log = logging.getLogger(__name__)

_KEPT_SHARE = 0.25  # of the memory budget, for decoded pairs
_BESIDE_BYTES = 3  # per pixel: class and weight
_MOST_PROBLEMS = 5  # in one message


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """One annotated slide; its arrays are in memory, or read from their files by region.

    Attributes
    ----------
    image : (channels, rows, columns) float32 array
        Normalized with the statistics of the whole slide.
    classes : (rows, columns) uint8 array
        Class map; :data:`pipeline.slides.labels.IGNORED` means not annotated.
    weights : (rows, columns) float16 array
    appearance : dict
        Measurements of the slide before normalization.
    statistics : tuple of Statistics
        Of each channel, used for normalization; empty if the image was not normalized.
    white : float
        The intensity of white: the largest value of an integer type.
    tissue : Tissue or None
        Where a stained slide has tissue.
    in_memory : bool
        Whether all arrays are in memory.
    """

    name: str
    image: Array
    classes: Array
    weights: Array
    appearance: dict[str, float] = field(default_factory=dict)
    statistics: tuple[Statistics, ...] = ()
    white: float = 1.0
    tissue: Tissue | None = None
    in_memory: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape[1], self.image.shape[2]

    @cached_property
    def class_index(self) -> ClassIndex:
        """Where each class is, without glass; made on first use, by reading all labels once."""
        index = index_classes(self.classes)
        return index.without_glass(self.tissue) if self.tissue else index


def open_pairs(
    pairs: Sequence[TrainingPair], weight_maps: Path, *, memory_mb: int, config: TrainConfig
) -> list[Annotated]:
    """Open training pairs and their weight maps, in the folder ``weight_maps``.

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
    log.info("%d of %d annotated images are kept in memory", sum(pair.in_memory for pair in opened), len(opened))
    return opened


def _open(pair: TrainingPair, weight_map: Path, memory_mb: int, config: TrainConfig, share_bytes: float) -> Annotated:
    with open_slide(pair.image, memory_mb=memory_mb, view=config.image) as slide:
        dtype = slide.levels[0].dtype
        shape = (slide.channels, *slide.shape)
        pixels: Array = LazyArray(shape, dtype, partial(_read_pixels, pair, config, memory_mb))
        classes: Array = LazyArray(slide.shape, np.dtype(np.uint8), partial(_read_classes, pair, config, memory_mb))
        weights: Array = LazyArray(slide.shape, np.dtype(np.float16), partial(_read_weights, weight_map, memory_mb))
        decoded_bytes = slide.shape[0] * slide.shape[1] * (slide.channels * dtype.itemsize + _BESIDE_BYTES)
        if is_small := decoded_bytes <= share_bytes:
            pixels, classes, weights = slide.read_all(), classes[:], weights[:]

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            return pixels[:, rows, columns] if is_small else slide.read(rows, columns)

        statistics = _statistics(read, slide)
        annotated = Annotated(
            name=pair.name,
            image=LazyArray(shape, np.dtype(np.float32), partial(_read_normalized, pixels, statistics)),
            classes=classes,
            weights=weights,
            appearance=appearance([read(rows, columns) for rows, columns in windows(slide.shape)]),
            statistics=statistics,
            white=float(np.iinfo(dtype).max) if dtype.kind in "ui" else max(one.maximum for one in statistics),
            tissue=find_tissue(slide),
            in_memory=is_small,
        )
    _check_labels(annotated, pair, config)
    return annotated


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


def _read_weights(path: Path, memory_mb: int, rows: slice, columns: slice) -> NDArray[np.float16]:
    with open_slide(path, memory_mb=memory_mb) as weights:
        plane: NDArray[np.float16] = weights.read(rows, columns)[0].astype(np.float16)
        return plane


def _statistics(read: Any, slide: Slide) -> tuple[Statistics, ...]:
    try:
        statistics = measure_intensities(row_bands(read, slide.shape), slide.levels[0].dtype)
    except ValueError as error:
        raise SlideError(f"{slide.path}: {error}") from error
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
