"""Predict the slides of one batch tile by tile with one network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import identity_of, provenance, sha256, write_json
from pipeline.networks.compilation import compiled
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import make_ready, segment_slides
from pipeline.prediction.store import PredictionWriter, write_predictions
from pipeline.project.drop_folder import members_of_batch
from pipeline.runtime.device import computes_bfloat16, prepare
from pipeline.settings.stage_sections import PredictConfig
from pipeline.tiling.plan import Plan, SlidePlan, read_plan

log = logging.getLogger(__name__)

_PIXEL_SIZE_TOLERANCE = 0.2


def run(
    *,
    network: Path,
    plans: Path,
    slides: Path,
    batch: str,
    output: Path,
    speed: Path,
    threads: int,
    memory_mb: int,
    config: PredictConfig,
) -> None:
    """Predict every sample of one batch; a slide that cannot be read is recorded with its reason, the others go on.

    Parameters
    ----------
    network : Path
        Network file (model.safetensors, with model.json beside it).
    plans : Path
        Folder of the plans that the stage tile wrote, one for each sample.
    slides : Path
        List of the samples of the run (results/slides.json).
    batch : str
        Id of the batch to predict, one of those in results/slides.json.
    output : Path
        Predictions to write (zarr zip); an interrupted one is continued.
    speed : Path
        JSON to write: times, and for each sample the share of pixels with an uncertain class.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Memory that the job may use, in MB.
    config : PredictConfig
        Classes, precision, and whether to keep probabilities.
    """
    device = prepare(threads)
    loaded, card = load_network(network, classes=config.classes)
    if config.precision == "bfloat16" and not computes_bfloat16(device):
        log.warning("%s has no bfloat16 in hardware; prediction.precision float32 is much faster here", device)
    make_ready(loaded, device, config.precision)
    if config.compile:
        loaded = compiled(loaded)
    found = [read_plan(plans / f"{sample}.json") for sample in members_of_batch(slides, batch)]
    origin = provenance("predict", config, weights=sha256(network))
    with write_predictions(
        output,
        num_classes=len(card.classes),
        probabilities=config.probabilities,
        identity=identity_of([origin, device.type, [[plan.to_dict(), _has_slide(plan)] for plan in found]]),
    ) as writer:
        planned = list(_begin(found, card, writer))
        measured = segment_slides(loaded, card, planned, writer, memory_mb=memory_mb, threads=threads)
        writer.finish(origin)
    write_json(speed, asdict(measured) | {"provenance": origin})
    log.info(
        "%.2f Mpx in %.1f s, %.2f Mpx/s: %.0f %% of it in the network, %.0f %% waiting to read, %.0f %% to write",
        measured.pixels / 1e6,
        measured.wall_s,
        measured.pixels / 1e6 / measured.wall_s,
        *(100 * part / measured.wall_s for part in (measured.network_s, measured.reading_s, measured.writing_s)),
    )
    if measured.compared_px:
        share = 100 * measured.differing_px / measured.compared_px
        log.info("tile mismatch: windows label %.2f %% of their shared pixels differently", share)


def _has_slide(plan: Plan) -> bool:
    return plan.slide is not None and plan.slide.slide.exists()


def _begin(plans: list[Plan], card: ModelCard, writer: PredictionWriter) -> Iterator[tuple[str, SlidePlan]]:
    """Create the arrays of the readable slides and record why the others fail."""
    for plan in plans:
        if plan.slide is None:
            writer.fail(plan.sample, stage="tile", error=plan.error or "")
            continue
        if not _has_slide(plan):  # removed from the drop folder; its plan is all that is left
            writer.fail(plan.sample, stage="predict", error=f"{plan.slide.slide}: the file no longer exists")
            continue
        _check_fit(plan.sample, plan.slide, card)
        writer.begin(plan.sample, plan.slide.grid, (tile.write for tile in plan.slide.glass()))
        yield plan.sample, plan.slide


def _check_fit(sample: str, plan: SlidePlan, card: ModelCard) -> None:
    """Refuse a plan of another network; warn if the pixel size is not that of the training."""
    if (plan.grid.stride_px, len(plan.view.channels)) != (card.geometry.stride_px, card.in_channels):
        raise SlidemillError(
            f"the plan of {sample!r} (stride {plan.grid.stride_px}, {len(plan.view.channels)} channels) is not for "
            f"this network (stride {card.geometry.stride_px}, {card.in_channels} channels); correct image.channels"
        )
    if card.pixel_size_um and plan.pixel_size_um:
        ratio = plan.pixel_size_um[0] / card.pixel_size_um[0]
        if abs(ratio - 1) > _PIXEL_SIZE_TOLERANCE:
            log.warning("%s: its pixels are %.2f times as large as those in the training", sample, ratio)
