"""Metrics of a network on an annotated image, by the same steps as for a slide with a reference."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from models.base.interface import SegmentationModel
from pipeline.base.arrays import Array
from pipeline.masks.instances import mask_images, pixel_area
from pipeline.metrics.evaluation import Row, copy_mask, copy_reference, measure, open_reference
from pipeline.networks.model_card import ModelCard
from pipeline.prediction.loop import segment_slides
from pipeline.prediction.store import open_prediction, write_predictions
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.stage_sections import ValidateConfig
from pipeline.tiling.plan import SlidePlan
from pipeline.tiling.plan_slide import plan_slide


def measure_pair(
    network: SegmentationModel,
    card: ModelCard,
    pair: TrainingPair,
    config: ValidateConfig,
    *,
    memory_mb: int,
    threads: int,
    scratch: Path,
) -> Row:
    """Segment the image of ``pair`` and return all metrics of its mask.

    Parameters
    ----------
    network : SegmentationModel
        Ready for prediction (:func:`pipeline.prediction.loop.make_ready`), with its ``card``.
    memory_mb : int
        Memory limit of reading and prediction.
    scratch : Path
        Empty folder for intermediate files.

    Raises
    ------
    SlidemillError
        If the image or its labels cannot be read, or do not fit each other.
    """
    plan = plan_slide(pair.image, card, memory_mb, config.tile)
    prediction = scratch / "prediction.zarr.zip"
    watershed = config.masks.instances == "watershed"
    with write_predictions(
        prediction, num_classes=len(card.classes), probabilities=watershed, identity=pair.name
    ) as writer:
        writer.begin(pair.name, plan.grid, (tile.write for tile in plan.glass()))
        segment_slides(network, card, [(pair.name, plan)], writer, memory_mb=memory_mb, threads=threads)
        writer.finish({})
    return _measure(prediction, pair, plan, config, memory_mb, scratch)


def _measure(
    prediction: Path, pair: TrainingPair, plan: SlidePlan, config: ValidateConfig, memory_mb: int, scratch: Path
) -> Row:
    """Make the mask of a prediction, and compare it with the labels."""
    with ExitStack() as stack:
        group = stack.enter_context(open_prediction(prediction, pair.name))
        truth = stack.enter_context(
            open_reference(pair.labels, plan.grid.shape, pair.image, config.labels, memory_mb=memory_mb, view=plan.view)
        )
        labels: Array = group["labels"]  # type: ignore[assignment]
        probabilities: Array | None = group.get("probabilities")  # type: ignore[assignment]
        area_um2 = pixel_area(plan.pixel_size_um, config.masks, slide=plan.slide)
        images = mask_images(labels, probabilities, config.masks, pixel_um2=area_um2, scratch=scratch / "mask")
        return measure(
            copy_reference(truth, config.labels, scratch / "truth"),
            copy_mask(images["classes"], images.get("instances"), scratch / "predicted"),
            classes=config.labels.classes,
            config=config.metrics,
            pixel_size_um=plan.pixel_size_um,
            probabilities=None,
        )
