"""Estimate time, memory and disk space of segmenting slides, from their headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import models
from models.model_sheet import model_sheet
from pipeline.base import paths
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.prediction.estimate import Estimate, Throughput, estimate, measure_throughput, throughput_of_runs
from pipeline.prediction.measurements import read_speed
from pipeline.project.stage_settings import network_file
from pipeline.runtime.device import prepare
from pipeline.runtime.job_limits import cores
from pipeline.settings.schema import Settings, read_settings
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.slide import open_slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import plan_grid


def run(slides: list[Path], *, settings: Path = Path("config/config.yaml"), threads: int = cores()) -> None:
    """Print a table of the slides for each network of the project in the current folder, trained or not.

    Parameters
    ----------
    slides : list of Path
        Slides to estimate.
    settings : Path
        Configuration of the project.
    threads : int
        CPU threads that a job of the stage predict will have.
    """
    config = read_settings(settings)
    for name in config.networks:
        card = _card(config, name)
        grids, errors = _grids(slides, card, config)
        speed = _throughput(name, card, [grid for grid, _ in grids.values()], threads) if grids else None
        print(f"{name}: speed from {speed.source}" if speed else f"{name}: no slide can be read")
        for error in errors:
            print(f"left out: {error}")
        if speed:
            kept = config.needs_probabilities
            _print({path: estimate(*grid, card, speed, probabilities=kept) for path, grid in grids.items()})


def _card(config: Settings, name: str) -> ModelCard:
    """Return the card of a network, or one of its architecture if it is not trained yet."""
    path = card_path(Path(network_file(config, name)))
    if path.is_file():
        return read_card(path)
    architecture, options = _architecture(config, name)
    shape = {"in_channels": len(config.image.channels), "num_classes": len(config.classes)}
    try:
        sheet = model_sheet(architecture, options=options, **shape)
    except ValueError as error:
        raise SlidemillError(str(error)) from error
    return ModelCard(
        architecture=architecture,
        options=options,
        classes=list(config.classes),
        in_channels=len(config.image.channels),
        geometry=sheet.geometry,
        pixel_size_um=None,
        normalization={},
        metrics={},
        validation=[],
        parameters=sheet.parameters,
        bytes_per_px=sheet.bytes_per_px,
    )


def _architecture(config: Settings, name: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of the architecture of a network or fold that is not trained yet."""
    if name in config.averages:
        average = config.averages[name]
        cards = [_card(config, member) for member in average.members]
        members = [{"architecture": card.architecture, "options": card.options} for card in cards]
        return "ensemble", {"members": members, "scales": list(average.scales), "symmetries": average.symmetries}
    model = config.models[config.trainings[name][0]]
    return model.architecture, model.stated_options


def _grids(
    slides: list[Path], card: ModelCard, config: Settings
) -> tuple[dict[Path, tuple[Grid, PixelSize | None]], list[SlideError]]:
    """Return the tiles and the pixel size of each slide, and the errors of the slides that cannot be read."""
    grids, errors, memory_mb = {}, [], config.tiling.memory_mb
    for path in slides:
        try:
            with open_slide(path, memory_mb=memory_mb, view=config.image) as slide:
                grids[path] = plan_grid(slide.shape, card, memory_mb, config.tiling.tile_px), slide.pixel_size_um
        except SlideError as error:
            errors.append(error)
    return grids, errors


def _throughput(name: str, card: ModelCard, grids: list[Grid], threads: int) -> Throughput:
    folder = Path(paths.SPEED.format(model=name, batch="")).parent
    speeds = [read_speed(path) for path in sorted(folder.rglob("*.json"))]
    if earlier := throughput_of_runs(speeds, sum(grid.redundancy for grid in grids) / len(grids)):
        return earlier
    device = prepare(threads)
    channels, classes = card.in_channels, len(card.classes)
    network = models.build(card.architecture, in_channels=channels, num_classes=classes, options=card.options)
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
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
