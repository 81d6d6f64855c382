"""Estimate time, memory and disk space of a run: its trainings, its slides by their headers, all stages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

import models
from models.base.heads import Head
from models.ensemble import shared_heads
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.networks.model_card import ModelCard, card_path, member_of, read_card
from pipeline.networks.model_sheet import model_sheet
from pipeline.prediction.estimate import Estimate, Throughput, estimate, measure_throughput, throughput_of_slides
from pipeline.prediction.measurements import Measurements
from pipeline.project.channels import with_channels
from pipeline.project.checks import check_files
from pipeline.project.drop.image_files import find_images, sample_id
from pipeline.project.jobs.announced import counted, span
from pipeline.project.jobs.expected import STAGES
from pipeline.project.jobs.ledger import ledger_path, read_ledger
from pipeline.project.jobs.progress import expected_seconds, start_seconds
from pipeline.project.jobs.run import Run
from pipeline.project.sample_sheet import SheetRow, read_rows
from pipeline.project.stage_settings import network_file, view_of
from pipeline.runtime.device import prepare
from pipeline.runtime.job_limits import cores
from pipeline.settings.masks import resolve_masks
from pipeline.settings.networks import AUTO
from pipeline.settings.schema import Settings, read_settings
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.slide import open_slide, planes_of
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import plan_grid

_ORDER = ("weigh", "train", "validate", "combine", *STAGES)
_AUTO_PATCH_PX, _AUTO_STEP_PX = 256, 4 * 256**2  # docs/auto.md


def run(slides: list[Path], *, settings: Path = Path("config/config.yaml"), threads: int = cores()) -> None:
    """Print a table of slides for each network of the project, trained or not, then how long the next run will take.

    Parameters
    ----------
    slides : list of Path
        Slides to estimate, wherever they are; without any, all of the drop folder, and the next run.
    settings : Path
        Configuration of the project.
    threads : int
        CPU threads that a job of the stage predict will have.
    """
    config = read_settings(settings)
    check_files(config)
    of_the_project = not slides
    slides = slides or list(find_images(Path(config.slides)).values())
    config, _ = with_channels(config, _training_images(config), slides)
    segmenting_s = {}
    for name in config.networks if slides else ():
        card = _card(config, name)
        grids, errors = _grids(slides, card, config)
        speed = _throughput(name, card, [grid for grid, _, _ in grids.values()], threads) if grids else None
        print(f"{name}: speed from {speed.source}" if speed else f"{name}: no slide can be read")
        for error in errors:
            print(f"left out: {error}")
        if speed:
            kept = config.prediction.kept(resolve_masks(config.masks, card.to_dict()))
            keeps = partial(estimate, probabilities="probabilities" in kept, heads="heads" in kept)
            estimates = {
                path: keeps(grid, size_um, card, speed, planes=planes)
                for path, (grid, size_um, planes) in grids.items()
            }
            segmenting_s[name] = {str(path): one.time_s for path, one in estimates.items()}
            _print(estimates)
    if of_the_project:
        print(*_next_run(config, segmenting_s, threads), sep="\n")


def _next_run(config: Settings, segmenting_s: dict[str, dict[str, float]], threads: int) -> Iterator[str]:
    """Yield how long the next run will take, and each stage of each model; ``segmenting_s`` by model and slide."""
    run = Run.find(config, is_main=True, on_cluster=False, waits=False)
    step_s = cache(partial(_step_s, config, threads=threads))
    stages: dict[tuple[str, str], list[float]] = defaultdict(list)
    for job in run.todo.jobs:
        seconds = expected_seconds(run, job)
        if job.stage == "train":
            training_of = run.model_of(job.model)
            training = config.models[training_of]
            seconds = start_seconds(job) + min(training.max_steps * step_s(training_of), training.max_seconds)
        elif job.stage == "predict":
            known = segmenting_s.get(job.model, {})
            of_slides = (known.get(run.samples[name].slide, 0.0) for name in run.batches[job.batch])
            seconds = start_seconds(job) + sum(of_slides)
        stages[job.stage, job.model].append(seconds)
    if not stages:
        yield "the next run has nothing to do"
        return
    yield f"the next run: about {span(sum(map(sum, stages.values())))}, one job after the other"
    for stage, model in sorted(stages, key=lambda one: (one[1], _ORDER.index(one[0]))):
        jobs = stages[stage, model]
        yield f"  {stage} of {model}: {span(sum(jobs))}, {counted(len(jobs), 'job')}"


def _step_s(config: Settings, model: str, *, threads: int) -> float:
    """Return the seconds of a training step: a pass forward and one back, which takes twice as long."""
    name = next(name for name, (of, _) in config.trainings.items() if of == model)
    settings, speed = config.models[model], _measured(_card(config, name), threads)
    patch_px = _AUTO_PATCH_PX if settings.patch_px == AUTO else settings.patch_px
    patches = max(1, _AUTO_STEP_PX // patch_px**2) if settings.batch_size == AUTO else settings.batch_size
    return 3 * patches * patch_px**2 / speed.px_per_s


def _training_images(config: Settings) -> list[Path]:
    """Return the training images; none, if the project has none yet."""
    return list(find_images(Path(config.training.images)).values()) if config.trainings else []


def _card(config: Settings, name: str) -> ModelCard:
    """Return the card of a network, or one of its architecture if it is not trained yet."""
    path = card_path(Path(network_file(config, name)))
    if path.is_file():
        return read_card(path)
    architecture, options, heads = _architecture(config, name)
    channels, classes = len(config.image.channels), len(config.classes)
    try:
        sheet = model_sheet(architecture, in_channels=channels, num_classes=classes, heads=heads, options=options)
    except ValueError as error:
        raise SlidemillError(str(error)) from error
    return ModelCard(
        architecture=architecture,
        options=options,
        classes=list(config.classes),
        in_channels=channels,
        geometry=sheet.geometry,
        pixel_size_um=None,
        normalization={},
        metrics={},
        validation=[],
        parameters=sheet.parameters,
        bytes_per_px=sheet.bytes_per_px,
        heads=heads,
    )


def _architecture(config: Settings, name: str) -> tuple[str, dict[str, Any], list[Head]]:
    """Return name, options and heads of the architecture of a network or fold that is not trained yet."""
    if name in config.averages:
        average = config.averages[name]
        cards = [_card(config, member) for member in average.members]
        members = [member_of(card) for card in cards]
        options = {"members": members, "scales": list(average.scales), "symmetries": average.symmetries}
        return "ensemble", options, shared_heads(members)
    model = config.models[config.trainings[name][0]]
    return model.architecture, model.stated_options, list(model.heads.names)


def _grids(
    slides: list[Path], card: ModelCard, config: Settings
) -> tuple[dict[Path, tuple[Grid, PixelSize | None, int]], list[SlideError]]:
    """Return tiles, pixel size and planes of each slide, and the errors of the slides that cannot be read."""
    grids, errors, memory_mb = {}, [], config.tiling.memory_mb
    samples = {path: _sample_of(path, config) for path in slides}
    rows = read_rows(Path(config.samples), samples.values(), channels=len(config.image.channels))
    for path in slides:
        view = view_of(config.image, rows.get(samples[path], SheetRow()))
        try:
            planes = planes_of(path, view, memory_mb=memory_mb)
            with open_slide(path, memory_mb=memory_mb, view=planes[0].view) as slide:
                tiling = config.tiling
                grid = plan_grid(slide.shape, card, memory_mb, tile_px=tiling.tile_px, mirror_px=tiling.mirror_px)
                grids[path] = grid, slide.pixel_size_um, len(planes)
        except SlideError as error:
            errors.append(error)
    return grids, errors


def _sample_of(slide: Path, config: Settings) -> str:
    """Return the id that the sample sheet gives a slide: its path in the drop folder; its name if it is elsewhere."""
    folder, path = Path(config.slides).resolve(), slide.resolve()
    relative = path.relative_to(folder) if path.is_relative_to(folder) else Path(slide.name)
    return sample_id(relative.as_posix()) or relative.as_posix()


def _throughput(name: str, card: ModelCard, grids: list[Grid], threads: int) -> Throughput:
    ledgers = ledger_path("predict", name, "").parent.rglob("*.json")
    entries = [entry for path in ledgers for entry in read_ledger(path).values() if entry.is_done]
    slides = [Measurements.from_found(entry.found) for entry in entries]
    if earlier := throughput_of_slides(slides, sum(grid.redundancy for grid in grids) / len(grids)):
        return earlier
    return _measured(card, threads)


def _measured(card: ModelCard, threads: int) -> Throughput:
    (device,) = prepare(threads)
    channels, classes = card.in_channels, len(card.classes)
    network = models.build(
        card.architecture, in_channels=channels, num_classes=classes, heads=card.heads, options=card.options
    )
    return measure_throughput(network, in_channels=channels, device=device)


def _print(estimates: dict[Path, Estimate]) -> None:
    rows: list[dict[str, object]] = [
        {
            "slide": str(path),
            "rows": one.shape[0],
            "columns": one.shape[1],
            "um/px": f"{one.pixel_size_um[0]:.3g}" if one.pixel_size_um else "?",
            "tiles": one.tiles,
            "redundancy": f"{one.redundancy:.2f}",
            "time": _clock(one.time_s),
            "memory_MB": one.memory_mb,
            "disk_MB": f"{one.disk_mb:,.1f}",
        }
        for path, one in estimates.items()
    ]
    several = estimates.values()
    rows.append(
        dict.fromkeys(rows[0], "")
        | {"slide": "total", "tiles": sum(one.tiles for one in several)}
        | {"time": _clock(sum(one.time_s for one in several)), "memory_MB": max(one.memory_mb for one in several)}
        | {"disk_MB": f"{sum(one.disk_mb for one in several):,.1f}"}
    )
    print(pd.DataFrame(rows).to_string(index=False))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)  # no slide takes no time
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
