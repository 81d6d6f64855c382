"""Predictions of annotated images, and their metrics by the same steps as for a slide with a reference."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import zarr

from models.base.interface import SegmentationModel
from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError
from pipeline.masks.instances import mask_images, pixel_area, with_areas
from pipeline.masks.random_field import refine_classes
from pipeline.metrics.evaluation import (
    LabelledImage,
    Row,
    copy_mask,
    copy_reference,
    measure,
    open_reference,
)
from pipeline.networks.model_card import ModelCard
from pipeline.prediction.detections.paint import mask_of_objects
from pipeline.prediction.loop import segment_slides
from pipeline.prediction.results import Target
from pipeline.prediction.store import head_of, open_prediction
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import DETECTED, DISTANCE, MaskConfig, resolve_masks
from pipeline.settings.stage_sections import LabelConfig, TileConfig, ValidateConfig
from pipeline.slides.intensity import normalized
from pipeline.slides.planes import Plane
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import SlidePlan
from pipeline.tiling.plan_slide import plan_slide

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictedPair:
    """The prediction of an annotated image (arrays by name), its classes, its normalized pixels, and its truth."""

    group: zarr.Group
    labels: Array
    image: LazyArray
    truth: LabelledImage

    def refined(self, field: CrfConfig, *, scratch: Path) -> PredictedPair:
        """Return the prediction with the classes of a random field."""
        probabilities: Array = self.group["probabilities"]  # type: ignore[assignment]
        return replace(self, labels=refine_classes(probabilities, self.image, field, scratch=scratch))

    def masks(self, config: MaskConfig, *, pixel_um2: float | None, scratch: Path) -> LabelledImage:
        """Return the mask of the prediction."""
        if config.instances == DETECTED:
            mask = mask_of_objects(self.group, config, pixel_um2=pixel_um2, scratch=scratch / "mask")
            return copy_mask(mask.images["classes"], mask.images["instances"], scratch / "predicted")
        probabilities: Array | None = self.group.get("probabilities")  # type: ignore[assignment]
        images = mask_images(
            self.labels,
            probabilities,
            config,
            distance=head_of(self.group, DISTANCE),
            image=self.image,
            pixel_um2=pixel_um2,
            scratch=scratch / "mask",
        )
        return copy_mask(images["classes"], images.get("instances"), scratch / "predicted")


@dataclass(frozen=True, kw_only=True)
class PairPredictor:
    """A network that predicts annotated images.

    Attributes
    ----------
    network : SegmentationModel
        Ready for prediction (:func:`pipeline.prediction.loop.make_ready`), with its ``card``.
    memory_mb : int
        Memory limit of reading and prediction.
    shared : Path or None
        A folder in which predictions stay, with all that the network has beside labels, so that no image is predicted
        twice.
    """

    network: SegmentationModel
    card: ModelCard
    labels: LabelConfig
    tile: TileConfig
    memory_mb: int
    threads: int
    shared: Path | None = None

    def plan(self, pair: TrainingPair) -> SlidePlan:
        """Return the plan of the image of a pair."""
        return plan_slide(pair.image, self.card, self.memory_mb, self.tile)

    @contextmanager
    def predict(self, pair: TrainingPair, plan: SlidePlan, scratch: Path, *, keep: set[str]) -> Iterator[PredictedPair]:
        """Predict the image of a pair into an empty folder, with ``probabilities`` and ``heads`` if they are to keep.

        Raises
        ------
        SlidemillError
            If the image or its labels cannot be read, or do not fit each other.
        """
        path = (self.shared or scratch) / f"{pair.name}.zarr.zip"
        target = Target(sample=pair.name, plan=plan, path=path, identity=pair.name)
        keep = keep if self.shared is None else {"probabilities", "heads"}
        if not path.exists():
            (finished,) = segment_slides(
                [self.network],
                self.card,
                [target],
                probabilities="probabilities" in keep,
                heads="heads" in keep,
                memory_mb=self.memory_mb,
                threads=self.threads,
            )
            if isinstance(finished.outcome, SlideError):
                raise finished.outcome
        with ExitStack() as stack:
            group = stack.enter_context(open_prediction(path))
            plane = Plane(view=plan.view)
            truth = stack.enter_context(
                open_reference(
                    pair.labels, plan.grid.shape, pair.image, self.labels, memory_mb=self.memory_mb, plane=plane
                )
            )
            copied = copy_reference(truth, self.labels, scratch / "truth")
            slide = stack.enter_context(open_slide(pair.image, memory_mb=self.memory_mb, view=plan.view))
            labels: Array = group["labels"]  # type: ignore[assignment]
            yield PredictedPair(group=group, labels=labels, image=normalized(slide, plan.statistics), truth=copied)

    def predict_up_to(
        self, limit_px: int, pairs: Sequence[TrainingPair], scratch: Path, *, keep: set[str]
    ) -> Iterator[tuple[PredictedPair, Path]]:
        """Yield each pair predicted, with a folder of its own; those that would exceed the limit are left out.

        More images would take longer, and choose the same.
        """
        seen_px = 0
        for pair in pairs:
            plan = self.plan(pair)
            pixels = math.prod(plan.grid.shape)
            if seen_px + pixels > limit_px:
                log.info("%s is left out: images of %d Mpx are enough to compare", pair.name, limit_px / 1e6)
                continue
            seen_px += pixels
            with (
                tempfile.TemporaryDirectory(dir=scratch) as folder,
                self.predict(pair, plan, Path(folder), keep=keep) as predicted,
            ):
                yield predicted, Path(folder)


def measure_pair(predictor: PairPredictor, pair: TrainingPair, config: ValidateConfig, *, scratch: Path) -> Row:
    """Segment the image of ``pair`` and return all metrics of its mask; ``scratch`` is an empty folder.

    What a network was found best with is not used: that was chosen on the same images.
    """
    masks = resolve_masks(config.masks, predictor.card.to_dict() | {"parting": [], "crf": []})
    masks = with_areas(masks, predictor.card.objects.get("small_area_px"))
    plan = predictor.plan(pair)
    area_um2 = pixel_area(plan.pixel_size_um, masks, slide=plan.slide)
    with predictor.predict(pair, plan, scratch, keep=masks.needs) as predicted:
        return measure(
            predicted.truth,
            predicted.masks(masks, pixel_um2=area_um2, scratch=scratch),
            classes=config.labels.classes,
            config=config.metrics,
            pixel_size_um=plan.pixel_size_um,
            probabilities=None,
        )
