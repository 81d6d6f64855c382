"""Write the masks of the slides of one batch: classes and objects over all tiles, with pyramid and pixel size."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.base import paths
from pipeline.base.arrays import Array
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance, replacing, sha256
from pipeline.masks.cut import cut_images
from pipeline.masks.instances import mask_images, pixel_area, with_areas
from pipeline.masks.ome_tiff import write_label_images
from pipeline.prediction.detections.paint import mask_of_objects
from pipeline.prediction.mask_stack import stack_of_masks
from pipeline.prediction.store import head_of, open_prediction
from pipeline.project.jobs.batch_job import Made, Task, batch_job
from pipeline.project.stage_settings import masks_of
from pipeline.settings.masks import DETECTED, DISTANCE, MaskConfig
from pipeline.settings.stage_sections import StitchConfig
from pipeline.slides.intensity import normalized
from pipeline.slides.regions import union_of
from pipeline.slides.slide import open_slide
from pipeline.tiling.plan import SlidePlan, read_plans

log = logging.getLogger(__name__)


def run(*, model: str, batch: str, network: Path, threads: int, memory_mb: int, config: StitchConfig) -> None:
    """Write the masks of one batch.

    Parameters
    ----------
    model : str
        Name of the network in the configuration.
    batch : str
        Batch of the run, one of those in results/slides.json.
    network : Path
        Network file (model.safetensors); model.json beside it says what ``auto`` stands for.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Memory that the job may use, in MB.
    config : MaskConfig
        How objects are made.
    """
    masks = masks_of(config.masks, network)
    log.info("masks: %s", masks.model_dump())
    config = config.model_copy(update={"masks": masks})
    with batch_job("stitch", config, model=model, batch=batch) as job:
        job.work_through(partial(_stitch, config=config), threads=threads, memory_mb=memory_mb)


def _stitch(task: Task, *, config: StitchConfig) -> Made:
    plans = read_plans(task.path(paths.PLAN))
    predicted = task.before.found if task.before else {}
    masks = with_areas(config.masks, predicted.get("small_area_px"))
    output = task.path(paths.MASK)
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(output))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=temporary.parent)))
        made = (partial(_mask_of, plan, task, masks) for plan in plans)
        (first, *others) = plans
        if others:
            axes = "".join(axis.upper() for axis in first.plane)
            shape = tuple(max(plan.plane[axis] for plan in plans) + 1 for axis in first.plane)
            images, scores = stack_of_masks(made, shape, scratch=scratch)
        else:
            axes = ""
            images, scores = next(made)(stack, scratch)
        made_from = {"slide": first.slide_sha256, "weights": predicted.get("weights_sha256", "")}
        about = {"sample": task.sample, "classes": ", ".join(config.classes)}
        write_label_images(
            temporary,
            images,
            axes=f"{axes}YX",
            pixel_size_um=first.pixel_size_um,
            z_step_um=first.z_step_um,
            annotations=about | provenance("stitch", config, **made_from),
        )
        scored = _write_scores(task.path(paths.SCORES), scores)
    return Made(files=[output, *scored], found={"mask_sha256": sha256(output)})


def _mask_of(
    plan: SlidePlan, task: Task, masks: MaskConfig, stack: ExitStack, scratch: Path
) -> tuple[dict[str, Array], NDArray[np.float32] | None]:
    """Return the images of the mask of a slide, or of one of its planes, and the scores of objects if it detects them.

    The images can be read as long as ``stack`` is open.
    """
    prediction = task.prediction(plan.plane)
    pixel_um2 = pixel_area(plan.pixel_size_um, masks, slide=plan.slide)
    group = stack.enter_context(open_prediction(prediction))
    for name in masks.needs - set(group.keys()):
        asking = "masks.crf" if masks.crf and name == "probabilities" else f"masks.instances {masks.instances!r}"
        raise SlidemillError(f"{prediction}: has no {name}, which {asking} needs; predict again with them")
    inside = None if plan.regions is None else union_of(plan.polygons, plan.grid.shape)
    if masks.instances == DETECTED:
        return mask_of_objects(group, masks, pixel_um2=pixel_um2, inside=inside, scratch=scratch)
    images = _mask_of_pixels(group, masks, plan, pixel_um2, task.memory_mb, stack, scratch)
    return images if inside is None else cut_images(images, inside, scratch=scratch), None


def _mask_of_pixels(
    group: zarr.Group,
    masks: MaskConfig,
    plan: SlidePlan,
    pixel_um2: float | None,
    memory_mb: int,
    stack: ExitStack,
    scratch: Path,
) -> dict[str, Array]:
    """Return the images of a mask made of pixels; the slide is open as long as ``stack``."""
    image: Array | None = None
    if masks.crf:
        slide = stack.enter_context(open_slide(plan.slide, memory_mb=memory_mb, view=plan.view))
        image = normalized(slide, plan.statistics)
    probabilities: Array | None = group.get("probabilities")  # type: ignore[assignment]
    labels: Array = group["labels"]  # type: ignore[assignment]
    distance = head_of(group, DISTANCE)
    return mask_images(
        labels, probabilities, masks, distance=distance, image=image, pixel_um2=pixel_um2, scratch=scratch
    )


def _write_scores(path: Path, scores: NDArray[np.float32] | None) -> list[Path]:
    """Write the scores of detected objects, and return the file; none, also no old one, for masks made of pixels."""
    path.unlink(missing_ok=True)
    if scores is None:
        return []
    with replacing(path) as temporary:
        rows = np.column_stack([np.arange(1, len(scores) + 1), scores])
        np.savetxt(temporary, rows, fmt=["%d", "%.4f"], delimiter=",", header="id,score", comments="")
    return [path]
