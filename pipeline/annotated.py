"""Annotated images as training sees them: read into memory, normalized as slides are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from pipeline.appearance import appearance, windows
from pipeline.errors import SlideError
from pipeline.intensity import measure, normalize, row_bands
from pipeline.labels import read_training_labels
from pipeline.patches import Annotated
from pipeline.project import TrainingPair
from pipeline.slides import open_slide
from pipeline.stage_config import TrainConfig


def read_pair(pair: TrainingPair, weights: Path, memory_mb: int, config: TrainConfig) -> Annotated:
    """Read one pair into memory, normalized as slides are."""
    with open_slide(pair.image, memory_mb=memory_mb, view=config.image) as slide:
        pixels = slide.read_all()
        classes, _ = read_training_labels(pair.labels, config.labels, like=slide, memory_mb=memory_mb)
    try:
        statistics = measure(row_bands(lambda rows, columns: pixels[:, rows, columns], classes.shape), pixels.dtype)
    except ValueError as error:
        raise SlideError(f"{pair.image}: {error}") from error
    return Annotated(
        name=pair.name,
        image=normalize(pixels, statistics),
        classes=classes,
        weights=np.asarray(tifffile.imread(weights / f"{pair.name}.tif"), dtype=np.float16),
        appearance=appearance([pixels[:, rows, columns] for rows, columns in windows(classes.shape)]),
    )
