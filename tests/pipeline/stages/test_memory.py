"""Memory does not grow: peak memory is set by the budget, not by the number of rows, and stays below it."""

import contextlib
import resource
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.base.errors import ConfigError
from pipeline.networks.model_card import card_path, read_card
from pipeline.runtime.job_limits import Limit
from pipeline.tiling.grid import Grid
from pipeline.tiling.memory_budget import budget_within, largest_window_px, needed_mb
from tests.support.jobs import Jobs
from tests.support.networks import write_network

MEMORY_MB = 1100  # a window of the short slide's is an eighth of it, so that memory is as full as with the long one
LIMIT_MB = 2000  # of address space for data, some of which the libraries reserve without ever touching it
COLUMNS, SHORT, LONG = 2048, 6_000, 60_000
STAGES = ("tile", "predict", "stitch")


def peaks_of(folder, rows, generator):
    """Write a slide of blobs and segment it in processes of limited address space; return each peak in MB."""
    square = np.kron(generator.integers(0, 255, (8, 8), dtype=np.uint8), np.ones((64, 64), np.uint8))
    tiles = (square for _ in range(-(-rows // 512) * (COLUMNS // 512)))
    limit = partial(resource.setrlimit, resource.RLIMIT_DATA, (LIMIT_MB * 10**6,) * 2)
    with contextlib.chdir(folder):
        jobs = Jobs(write_network(folder / "network", width=2), memory_mb=MEMORY_MB)
        tifffile.imwrite("a.tif", tiles, shape=(rows, COLUMNS), dtype=np.uint8, tile=(512, 512), compression="zlib")
        jobs.put("a", Path("a.tif"))
        return {stage: jobs.measure(stage, before=limit)[1] / 10**6 for stage in STAGES}


@pytest.mark.slow
def test_ten_times_the_rows_take_no_more_memory_than_the_budget(tmp_path, generator):
    """Several runs, because the peak varies by some percent; the long ones only as long as one seems to be larger."""
    short, long = [], []
    while len(short) < 3 or (len(long) < 4 and any(long_is_larger(stage, short, long) for stage in STAGES)):
        peaks, rows = (short, SHORT) if len(short) < 3 else (long, LONG)
        folder = tmp_path / f"{rows} {len(peaks)}"
        folder.mkdir()
        peaks.append(peaks_of(folder, rows, generator))
    assert not [stage for stage in STAGES if long_is_larger(stage, short, long)], (short, long)
    assert max(peak for peaks in short + long for peak in peaks.values()) < MEMORY_MB, (short, long)


def long_is_larger(stage, short, long):
    return not long or min(peak[stage] for peak in long) > 1.05 * max(peak[stage] for peak in short)


def test_a_budget_below_what_the_libraries_need_is_one_clear_line(tmp_path):
    card = read_card(card_path(write_network(tmp_path, width=2)))
    assert largest_window_px(card, 2000) > largest_window_px(card, 1000) > 0
    with pytest.raises(ConfigError, match=r"tiling.memory_mb is 800, of which .* alone take 850; raise it"):
        largest_window_px(card, 800)


def test_a_budget_goes_by_the_limit_of_the_job(tmp_path):
    """If the tiles need more, an error says so, since a killed job leaves no message."""
    card = read_card(card_path(write_network(tmp_path, width=2)))
    grid = Grid(shape=(4000, 4000), tile=(2048, 2048), halo_px=96, surround_px=96, stride_px=16)
    needed = needed_mb(card, grid.window_px)
    assert budget_within(None, card, [grid], memory_mb=9000) == 9000
    assert budget_within(Limit(9000, "x"), card, [grid], memory_mb=9000) == 9000
    assert budget_within(Limit(needed, "x"), card, [grid], memory_mb=9000) == needed
    with pytest.raises(ConfigError, match=rf"of 9000 take about {needed} MB, this job may take {needed - 1} MB \(x\)"):
        budget_within(Limit(needed - 1, "x"), card, [grid], memory_mb=9000)
