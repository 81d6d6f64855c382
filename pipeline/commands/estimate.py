"""Estimate time, memory and disk space of segmenting slides, from their headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
from models.sheet import model_sheet
from pipeline.base import paths
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.networks.model_card import ModelCard, card_path, read_card
from pipeline.prediction.estimate import Estimate, Throughput, estimate, measure_throughput, throughput_of_runs
from pipeline.prediction.speed import read_speed
from pipeline.project.stage_settings import network_file
from pipeline.runtime.device import prepare
from pipeline.runtime.limits import cores
from pipeline.settings.schema import Settings, read_settings
from pipeline.slides.slide import open_slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import plan_grid

_HEAD = ("slide", "rows", "columns", "um/px", "tiles", "redundancy", "time", "memory_MB", "disk_MB")


def run(slides: list[Path], *, settings: Path = Path("config/config.yaml"), threads: int = cores()) -> None:
    """Print a table of ``slides`` for each network of the project in the current folder, trained or not.

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
        grids = {path: _grid(path, card, config) for path in slides}
        pace = _pace(name, card, [grid for grid, _ in grids.values() if isinstance(grid, Grid)], threads)
        print(f"{name}: speed from {pace.source}" if pace else f"{name}: no slide can be read")
        _print(grids, card, pace, config)


def _card(config: Settings, name: str) -> ModelCard:
    """Return the card of a network; of one that is not trained yet, what is known of it."""
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
        appearance=[],
        parameters=sheet.parameters,
        bytes_per_px=sheet.bytes_per_px,
    )


def _architecture(config: Settings, name: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of the architecture of a network, or of a fold, that is not trained yet."""
    if name in config.averages:
        average = config.averages[name]
        cards = [_card(config, member) for member in average.members]
        members = [{"architecture": card.architecture, "options": card.options} for card in cards]
        return "ensemble", {"members": members, "scales": list(average.scales), "symmetries": average.symmetries}
    model = config.models[config.trainings[name][0]]
    return model.architecture, model.stated_options


def _grid(path: Path, card: ModelCard, config: Settings) -> tuple[Grid, tuple[float, float] | None] | tuple[str, None]:
    """Return the tiles of a slide and its pixel size, or why it cannot be read."""
    tiling = config.tiling
    try:
        with open_slide(path, memory_mb=tiling.memory_mb, view=config.image) as slide:
            return plan_grid(slide.shape, card, tiling.memory_mb, tiling.tile_px), slide.pixel_size_um
    except SlideError as error:
        return str(error), None


def _pace(name: str, card: ModelCard, grids: list[Grid], threads: int) -> Throughput | None:
    if not grids:
        return None
    folder = Path(paths.SPEED.format(model=name, batch="")).parent
    speeds = [read_speed(path) for path in sorted(folder.rglob("*.json"))]
    mean = sum(grid.redundancy for grid in grids) / len(grids)
    if earlier := throughput_of_runs(speeds, mean):
        return earlier
    device = prepare(threads)
    network = models.build(
        card.architecture, in_channels=card.in_channels, num_classes=len(card.classes), options=card.options
    )
    return measure_throughput(network, in_channels=card.in_channels, device=device)


def _print(
    grids: dict[Path, tuple[Grid, tuple[float, float] | None] | tuple[str, None]],
    card: ModelCard,
    pace: Throughput | None,
    config: Settings,
) -> None:
    rows: list[tuple[str, ...]] = [_HEAD]
    made: list[Estimate] = []
    for path, (grid, size) in grids.items():
        if isinstance(grid, str) or pace is None:
            print(f"left out: {grid}")
            continue
        made.append(estimate(grid, size, card, pace, probabilities=config.needs_probabilities))
        rows.append(_cells(str(path), made[-1]))
    if made:
        total_s, disk_mb = sum(one.time_s for one in made), sum(one.disk_mb for one in made)
        largest = max(one.memory_mb for one in made)
        tiles = sum(one.tiles for one in made)
        rows.append(("total", "", "", "", str(tiles), "", _clock(total_s), str(largest), f"{disk_mb:,.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(path: str, made: Estimate) -> tuple[str, ...]:
    size = f"{made.pixel_size_um[0]:.3g}" if made.pixel_size_um else "?"
    rows, columns = map(str, made.shape)
    numbers = (f"{made.redundancy:.2f}", _clock(made.time_s), str(made.memory_mb), f"{made.disk_mb:,.1f}")
    return path, rows, columns, size, str(made.tiles), *numbers


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
