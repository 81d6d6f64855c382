"""Annotated slides of any size, opened lazily: pixels, labels and weight maps are read by region.

Opening a pair measures it band by band, so that all errors are reported before the training begins.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stages import LabelConfig, TrainConfig
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
    name : str
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


@dataclass(frozen=True, kw_only=True)
class Normalized:
    """Pixels of a slide, normalized when they are sliced."""

    pixels: Array
    statistics: tuple[Statistics, ...]
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, rows, columns."""
        return self.pixels.shape

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        return normalize(self.pixels[key], list(self.statistics))


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """A slide as an array; the file is opened for each read, so that any process can read it."""

    path: Path
    view: ImageConfig
    memory_mb: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        _, rows, columns = key
        with open_slide(self.path, memory_mb=self.memory_mb, view=self.view) as slide:
            return slide.read(rows, columns)


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """The class map of the labels of a slide, as an array."""

    image: _Pixels
    path: Path
    config: LabelConfig
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape[1:]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        slices = key if isinstance(key, tuple) else (key, slice(None))
        rows, columns = (range(n)[part] for n, part in zip(self.shape, slices, strict=True))
        memory_mb = self.image.memory_mb
        with (
            open_slide(self.image.path, memory_mb=memory_mb, view=self.image.view) as slide,
            open_labels(self.path, self.config, memory_mb=memory_mb, like=slide) as labels,
        ):
            plane = labels.read(slice(rows.start, rows.stop + 1), slice(columns.start, columns.stop + 1))[0]
        return training_classes(plane, self.config, source=self.path)[: len(rows), : len(columns)]


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """The weight map of a slide as an array."""

    path: Path
    memory_mb: int
    shape: tuple[int, ...]
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float16)

    def __getitem__(self, key: Any) -> NDArray[np.float16]:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        with open_slide(self.path, memory_mb=self.memory_mb) as weights:
            plane: NDArray[np.float16] = weights.read(rows, columns)[0].astype(np.float16)
            return plane


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
        lazy = _Pixels(
            path=pair.image,
            view=config.image,
            memory_mb=memory_mb,
            shape=(slide.channels, *slide.shape),
            dtype=dtype,
        )
        pixels: Array = lazy
        classes: Array = _Classes(image=lazy, path=pair.labels, config=config.labels)
        weights: Array = _Weights(path=weight_map, memory_mb=memory_mb, shape=slide.shape)
        decoded_bytes = slide.shape[0] * slide.shape[1] * (slide.channels * dtype.itemsize + _BESIDE_BYTES)
        if is_small := decoded_bytes <= share_bytes:
            pixels, classes, weights = slide.read_all(), classes[:], weights[:]

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            return pixels[:, rows, columns] if is_small else slide.read(rows, columns)

        statistics = _statistics(read, slide)
        annotated = Annotated(
            name=pair.name,
            image=Normalized(pixels=pixels, statistics=statistics),
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
