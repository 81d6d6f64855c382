"""Plan which tiles cover the slides of one batch, measure their intensities and appearance, outline their tissue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import provenance, replacing, sha256, write_json
from pipeline.masks.qupath_geojson import write_features
from pipeline.masks.tissue_outline import tissue_feature
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.project.jobs.batch_job import Made, Task, batch_job
from pipeline.project.stage_settings import view_of
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.appearance import appearance, windows
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.planes import Plane
from pipeline.slides.regions import read_regions
from pipeline.slides.slide import Slide, open_slide, planes_of
from pipeline.tiling.plan import SlidePlan, content_of
from pipeline.tiling.plan_slide import content_sha256, plan_open_slide, tissue_of
from pipeline.tiling.tissue import Tissue

_PIXEL_SIZE_TOLERANCE = 0.2  # a larger difference from the training is a warning


def run(*, model: str, batch: str, network: Path, threads: int, memory_mb: int, config: TileConfig) -> None:
    """Write a plan for each slide of one batch; a slide that cannot be read has none, and the reason in the ledger.

    Parameters
    ----------
    model : str
        Name of the network in the configuration.
    batch : str
        Batch of the run, one of those in results/slides.json.
    network : Path
        Network file (model.safetensors, with model.json beside it).
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Memory that predicting the tiles may use, in MB.
    config : TileConfig
        Tile size, tissue detection and how slides are read.
    """
    with batch_job("tile", config, model=model, batch=batch, network=network) as job:
        if not job.tasks:
            return
        try:
            card = read_card(card_path(network))
        except SlidemillError as error:
            job.fail_all(error)
        else:
            make = partial(_plan, card=card, card_sha256=job.network.card, config=config)
            job.work_through(make, threads=threads, memory_mb=memory_mb)


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """What the stage makes of one plane of a slide, or of all of it; ``tissue`` is a feature, if any was found."""

    plan: SlidePlan
    tissue: dict[str, Any] | None
    warnings: list[str]
    look: Mapping[str, float]


def _plan(task: Task, *, card: ModelCard, card_sha256: str, config: TileConfig) -> Made:
    path, output = Path(task.slide.slide), task.path(paths.PLAN)
    of_slide = config.model_copy(update={"image": view_of(config.image, task.slide.row)})
    content = content_sha256(path)
    planned = [
        _plan_plane(plane, task, card, content, of_slide.model_copy(update={"image": plane.view}))
        for plane in planes_of(path, of_slide.image, memory_mb=task.memory_mb)
    ]
    inside = _inside(task)
    made_from = {"model_json": card_sha256} | ({} if inside is None else {"regions": sha256(inside)})
    origin = provenance("tile", of_slide, **made_from)
    tissue = [one.tissue for one in planned if one.tissue]
    files = [output, *_write_tissue(task.path(paths.TISSUE), tissue, origin)]
    write_json(output, content_of([one.plan for one in planned]) | {"provenance": origin})
    found = {
        "pixels": sum(math.prod(one.plan.grid.shape) for one in planned),
        "slide_sha256": content,
        "appearance": planned[len(planned) // 2].look,
        "warnings": list(dict.fromkeys(warning for one in planned for warning in one.warnings)),
    }
    return Made(files=files, found=found)


def _plan_plane(plane: Plane, task: Task, card: ModelCard, content: str, config: TileConfig) -> _Planned:
    """Plan a slide, or one plane of it; ``content`` is its SHA-256."""
    path, inside = Path(task.slide.slide), _inside(task)
    with open_slide(path, memory_mb=task.memory_mb, view=plane.view) as slide:
        regions = None if inside is None else read_regions(inside, slide, memory_mb=task.memory_mb)
        tissue = tissue_of(slide, config)
        plan = plan_open_slide(
            slide, card, task.memory_mb, config, slide_sha256=content, tissue=tissue, regions=regions
        )
        look = appearance([slide.read(rows, columns) for rows, columns in windows(slide.shape)])
        if not all(math.isfinite(number) for number in look.values()):
            raise SlideError(f"{path}: pixels are NaN or infinite; replace them")
        return _Planned(
            plan=replace(plan, plane=plane.place, z_step_um=_z_step(slide) if "z" in plane.place else None),
            tissue=_outlined(tissue, slide, plane),
            warnings=[*slide.inspect(), *pixel_size_warning(slide.pixel_size_um, card.pixel_size_um)],
            look=look,
        )


def _z_step(slide: Slide) -> float | None:
    return slide.choice.image.z_step_um if slide.choice else None


def _outlined(tissue: Tissue | None, slide: Slide, plane: Plane) -> dict[str, Any] | None:
    if tissue is None or not tissue.stained.any():
        return None
    return tissue_feature(tissue.stained, tissue.cell_px, slide, plane.in_file)


def _inside(task: Task) -> Path | None:
    """Return the regions that the mask of a slide is cut to; None if it is not."""
    return Path(task.slide.regions) if task.slide.regions and task.slide.is_cut else None


def _write_tissue(path: Path, tissue: list[dict[str, Any]], origin: dict[str, Any]) -> list[Path]:
    """Write the outlines of the tissue, and return the file; none, also no old one, where none was found."""
    path.unlink(missing_ok=True)
    if not tissue:
        return []
    with replacing(path) as temporary:
        write_features(temporary, tissue, origin)
    return [path]


def pixel_size_warning(slide: PixelSize | None, training: PixelSize | None) -> list[str]:
    """Return what to know if pixels are not square, or not as large as in the images that the network learned from."""
    if slide is None:
        return []
    if training is None:
        is_square = max(slide) <= min(slide) * (1 + _PIXEL_SIZE_TOLERANCE)
        sides = f"{slide[0]:.4g} x {slide[1]:.4g} µm"
        return [] if is_square else [f"its pixels are not square ({sides}); image.pixel_size_um makes them square"]
    own, other = max(zip(slide, training, strict=True), key=lambda sides: abs(math.log(sides[0] / sides[1])))
    if abs(own / other - 1) <= _PIXEL_SIZE_TOLERANCE:
        return []
    return [f"its pixels are {own / other:.3g} times as large as those of the training ({own:.4g} and {other:.4g} µm)"]
