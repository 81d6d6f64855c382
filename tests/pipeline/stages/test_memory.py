"""Memory does not grow: peak memory is set by the budget, not by the number of rows, and stays below it."""

import resource
from functools import partial

import numpy as np
import pytest
import tifffile

from pipeline.base.errors import ConfigError
from pipeline.networks.model_card import card_path, read_card
from pipeline.project.stage_settings import stage_config
from pipeline.runtime.job_limits import Limit
from pipeline.settings.schema import Settings
from pipeline.tiling.grid import Grid
from pipeline.tiling.memory_budget import budget_within, largest_window_px, needed_mb
from tests.support.commands import run_stage
from tests.support.networks import CLASSES, write_network
from tests.support.slide_files import write_batch

MEMORY_MB = 1500
LIMIT_MB = 2000  # of address space for data, some of which the libraries reserve without ever touching it
COLUMNS, SHORT, LONG = 2048, 10_000, 100_000


def peak_of(stage, *flags):
    """Run a stage in a process whose address space is limited; return its peak in MB."""
    config = stage_config(Settings(classes=CLASSES), stage)
    limit = partial(resource.setrlimit, resource.RLIMIT_DATA, (LIMIT_MB * 10**6,) * 2)
    _, peak = run_stage(stage, *flags, config=config, before=limit)
    return peak / 10**6


def peaks_of(folder, rows, generator):
    """Write a slide of blobs and segment it; return the peak of every stage."""
    weights = write_network(folder / "network", width=2)
    square = np.kron(generator.integers(0, 255, (8, 8), dtype=np.uint8), np.ones((64, 64), np.uint8))
    slide, plan, prediction = folder / "slide.tif", folder / "plans" / "a.json", folder / "a.zarr.zip"
    tiles = (square for _ in range(-(-rows // 512) * (COLUMNS // 512)))
    tifffile.imwrite(slide, tiles, shape=(rows, COLUMNS), dtype=np.uint8, tile=(512, 512), compression="zlib")
    model, memory = ("--model", card_path(weights)), ("--memory-mb", MEMORY_MB)
    sample = "--sample=a"
    write_batch(folder / "slides.json", "a", ["a"])
    batch = ("--slides", folder / "slides.json", "--batch=a")
    network = ("--network", weights, "--plans", folder / "plans", *batch, "--threads", 2)
    results = ("--output", prediction, "--speed", folder / "a.json")
    return {
        "tile": peak_of("tile", sample, "--slide", slide, *model, "--output", plan, *memory),
        "predict": peak_of("predict", *network, *results, *memory),
        "stitch": peak_of(
            "stitch", sample, "--prediction", prediction, "--plan", plan, *model, "--output", folder / "a.ome.tiff"
        ),
    }


@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_memory_than_the_budget(tmp_path, generator):
    """Several runs, because the peak varies by some percent."""
    peaks = []
    for run, rows in enumerate((SHORT, SHORT, SHORT, LONG, LONG)):
        (tmp_path / str(run)).mkdir()
        peaks.append(peaks_of(tmp_path / str(run), rows, generator))
    for stage in ("tile", "predict", "stitch"):
        short, long = ([peak[stage] for peak in some] for some in (peaks[:3], peaks[3:]))
        assert min(long) <= 1.05 * max(short), peaks
        assert max(short + long) < MEMORY_MB, peaks


def test_a_budget_below_what_the_libraries_need_is_one_clear_line(tmp_path):
    card = read_card(card_path(write_network(tmp_path, width=2)))
    assert largest_window_px(card, 2000) > largest_window_px(card, 1000) > 0
    with pytest.raises(ConfigError, match=r"tiling.memory_mb is 800, of which .* alone take 850; raise it"):
        largest_window_px(card, 800)


def test_a_budget_goes_by_the_limit_of_the_job(tmp_path):
    """If the tiles need more, an error says so, since a killed job leaves no message."""
    card = read_card(card_path(write_network(tmp_path, width=2)))
    grid = Grid(shape=(4000, 4000), tile=(2048, 2048), halo_px=96, stride_px=16)
    needed = needed_mb(card, grid.window_px)
    assert budget_within(None, card, [grid], memory_mb=9000) == 9000
    assert budget_within(Limit(9000, "x"), card, [grid], memory_mb=9000) == 9000
    assert budget_within(Limit(needed, "x"), card, [grid], memory_mb=9000) == needed
    with pytest.raises(ConfigError, match=rf"of 9000 take about {needed} MB, this job may take {needed - 1} MB \(x\)"):
        budget_within(Limit(needed - 1, "x"), card, [grid], memory_mb=9000)
