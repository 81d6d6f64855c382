"""Compare one mask with its reference."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from pipeline import __version__
from pipeline.base.arrays import Array
from pipeline.base.files import replacing, sha256, spreadsheet_text
from pipeline.masks.mask_file import open_mask
from pipeline.metrics.evaluation import copy_mask, copy_reference, measure, open_reference
from pipeline.prediction.store import open_prediction
from pipeline.runtime.threads import use_threads
from pipeline.settings.stage_sections import EvaluateConfig


def run(
    *,
    sample: str,
    model: str,
    mask: Path,
    slide: Path,
    reference: Path,
    output: Path,
    threads: int,
    memory_mb: int,
    config: EvaluateConfig,
    prediction: Path | None = None,
) -> None:
    """Write the metrics of one sample.

    Parameters
    ----------
    sample : str
        Id of the sample.
    model : str
        Name of the network.
    mask : Path
        Mask of the sample (OME-TIFF).
    slide : Path
        Slide of the sample; the reference may have the shape of the slide file or of the mask.
    reference : Path
        Label image to compare with.
    output : Path
        CSV of one row to write; docs/metrics.md describes the columns.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : EvaluateConfig
        Classes, how references are read, and which metrics to compute.
    prediction : Path, optional
        Prediction of the batch; its probabilities are measured too, if it has them.
    """
    use_threads(threads)
    labels = config.labels
    with ExitStack() as stack:
        predicted = stack.enter_context(open_mask(mask, memory_mb=memory_mb))
        truth = stack.enter_context(
            open_reference(reference, predicted.slide.shape, slide, labels, memory_mb=memory_mb, view=config.image)
        )
        temporary = stack.enter_context(replacing(output))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=temporary.parent)))
        probabilities: Array | None = None
        if prediction is not None:
            probabilities = stack.enter_context(open_prediction(prediction, sample))["probabilities"]  # type: ignore[assignment]
        metrics = measure(
            copy_reference(truth, labels, scratch / "truth"),
            copy_mask(predicted.classes, predicted.instances, scratch / "predicted"),
            classes=labels.classes,
            config=config.metrics,
            pixel_size_um=predicted.slide.pixel_size_um,
            probabilities=probabilities,
        )
        origin = {"version": __version__, "mask_sha256": sha256(mask), "reference_sha256": sha256(reference)}
        row = {"sample": spreadsheet_text(sample), "model": model} | metrics | origin
        pd.DataFrame([row]).to_csv(temporary, index=False)
