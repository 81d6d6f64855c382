"""Compare one mask with its reference, block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from dask.base import compute
from dask.delayed import delayed

from pipeline import __version__
from pipeline.config import LabelConfig
from pipeline.errors import SlideError
from pipeline.files import replacing, sha256
from pipeline.labels import class_map
from pipeline.metrics import Counts, confusion, dice, jaccard, mean_over_classes
from pipeline.slides import Slide, open_slide

_BAND_PX = 2**22


def run(
    *,
    sample: str,
    model: str,
    mask: Path,
    reference: Path,
    output: Path,
    threads: int,
    memory_mb: int,
    config: LabelConfig,
) -> None:
    """Write the metrics of one sample, a CSV of one row; the columns are described in docs/contracts.md."""
    with open_slide(mask, memory_mb=memory_mb) as predicted, open_slide(reference, memory_mb=memory_mb) as truth:
        if predicted.shape != truth.shape or truth.channels != 1:
            raise SlideError(
                f"{reference}: the reference has {truth.shape} px and {truth.channels} channels, "
                f"the mask of {sample!r} has {predicted.shape} px and 1; give it the shape of its slide"
            )
        counts = _count(truth, predicted, config, threads)
    row = (
        {"sample": sample, "model": model}
        | _metrics(counts, config.classes)
        | {"version": __version__, "mask_sha256": sha256(mask), "reference_sha256": sha256(reference)}
    )
    with replacing(output) as temporary:
        pd.DataFrame([row]).to_csv(temporary, index=False)


def _count(truth: Slide, predicted: Slide, config: LabelConfig, threads: int) -> Counts:
    """Sum the confusion matrix over bands of rows."""
    rows = max(1, _BAND_PX // truth.shape[1])

    def count(top: int) -> Counts:
        band = slice(top, min(top + rows, truth.shape[0])), slice(0, truth.shape[1])
        classes = class_map(truth.read(*band)[0], config, source=truth.path)
        return confusion(classes, predicted.read(*band)[0], num_classes=len(config.classes))

    parts = compute(  # type: ignore[no-untyped-call]
        *(delayed(count)(top) for top in range(0, truth.shape[0], rows)), scheduler="threads", num_workers=threads
    )
    total: Counts = np.sum(parts, axis=0)
    return total


def _metrics(counts: Counts, classes: list[str]) -> dict[str, float | int]:
    row: dict[str, float | int] = {"pixels": int(counts.sum())}
    for name, values in (("dice", dice(counts)), ("jaccard", jaccard(counts))):
        row[f"{name}_mean"] = mean_over_classes(values)
        row |= {f"{name}_{label}": float(value) for label, value in zip(classes, values, strict=True)}
    row |= {f"pixels_truth_{label}": int(total) for label, total in zip(classes, counts.sum(axis=1), strict=True)}
    row |= {f"pixels_predicted_{label}": int(total) for label, total in zip(classes, counts.sum(axis=0), strict=True)}
    return row
