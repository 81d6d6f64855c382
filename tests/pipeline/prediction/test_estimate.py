"""Estimates need headers only, and agree with plans and measurements."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.base.errors import Failure
from pipeline.prediction.estimate import Throughput, estimate, throughput_of_slides
from pipeline.project.jobs.ledger import Entry, ledger_path, write_ledger
from pipeline.slides.slide import Slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.memory_budget import largest_window_px, needed_mb
from pipeline.tiling.plan import plan_grid
from tests.support.networks import CARD, CLASSES, write_network
from tests.support.prediction import MEASURED

UNET = {"architecture": "unet", "options": {"width": 2, "depth": 2}}


def project(folder, ensembles=(), **network):
    """A project with one trained network, and one slide."""
    write_network(folder / "network", width=2, depth=2)
    config = {"classes": CLASSES, "models": {"net": network or {"checkpoint": "network/model.safetensors"}}}
    config["ensembles"] = dict(ensembles)
    tifffile.imwrite("a.tif", np.zeros((300, 100), np.uint8))
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))


def record(model, batch, measured):
    """Record a sample that was predicted, and one that failed."""
    with write_ledger(ledger_path("predict", model, batch), stage="predict", model=model, batch=batch) as writer:
        writer.record("a", Entry(fingerprint="1", found=asdict(measured) | {"weights_sha256": "2"}))
        writer.record("b", Entry(fingerprint="1", failure=Failure("predict", "SlideError", "b.tif: damaged")))


@given(window_px=st.integers(1, 10**9), parameters=st.integers(0, 10**8), bytes_per_px=st.integers(1, 5000))
def test_memory_of_a_window_agrees_with_the_largest_window(window_px, parameters, bytes_per_px):
    card = replace(CARD, parameters=parameters, bytes_per_px=bytes_per_px)
    needed = needed_mb(card, window_px)
    assert largest_window_px(card, needed) >= window_px
    assert largest_window_px(card, needed + 1) > window_px


@given(rows=st.integers(1, 20_000), columns=st.integers(1, 20_000), memory_mb=st.integers(1500, 9000))
def test_planned_windows_fit_into_the_memory(rows, columns, memory_mb):
    grid = plan_grid((rows, columns), CARD, memory_mb, tile_px=None, mirror_px=32)
    throughput = Throughput(px_per_s=1e6, redundancy=1.0, source="")
    made = estimate(grid, None, CARD, throughput, probabilities=False)
    assert made.memory_mb <= memory_mb
    assert (made.tiles, made.shape) == (grid.count, (rows, columns))


def test_an_estimate_by_hand():
    grid = Grid(shape=(1000, 1000), tile=(512, 512), halo_px=96, surround_px=96, stride_px=16)
    throughput = Throughput(px_per_s=2e6, redundancy=1.5, source="")
    made = estimate(grid, (0.5, 0.5), CARD, throughput, probabilities=True)
    computed = (512 + 192 + 496 + 192) ** 2  # the last tile has 488 px, that is 31 strides
    assert made.redundancy == pytest.approx(computed / 1e6)
    assert made.time_s == pytest.approx(0.5 * computed / 1e6 / 1.5)
    assert made.memory_mb == needed_mb(CARD, (512 + 192) ** 2)
    assert made.disk_mb == pytest.approx(0.15 + 0.05 + 2 * 2)


def test_the_throughput_of_earlier_predictions_is_that_of_all_of_them():
    assert throughput_of_slides([], 1.2) is None
    throughput = throughput_of_slides([MEASURED, replace(MEASURED, pixels=1_000_000, wall_s=6.0)], 1.2)
    assert (throughput.px_per_s, throughput.redundancy, throughput.source) == (
        500_000,
        1.2,
        "earlier predictions (2)",
    )


def test_no_pixel_is_decoded_and_a_bad_slide_is_skipped(in_folder, monkeypatch, capsys):
    project(in_folder)
    record("net", "plate/1", MEASURED)
    tifffile.imwrite("a.tif", np.zeros((3000, 1000), np.uint8))
    (in_folder / "bad.tif").write_text("bad")

    def read(*_):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(Slide, "read", read)
    assert main(["estimate", "a.tif", "bad.tif"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net: speed from earlier predictions (1)"
    assert lines[1].startswith("left out: bad.tif: cannot be read")
    assert lines[3].split()[:4] == ["a.tif", "3000", "1000", "?"]
    assert lines[3].split()[6] == "0:00:02"  # 3 Mpx at 1.5 Mpx/s
    assert lines[4].split()[0] == "total"


def test_a_network_without_runs_is_timed(in_folder, capsys):
    project(in_folder, **UNET)
    assert main(["estimate", "a.tif", "--threads", "1"]) == 0
    assert "timed on a window of" in capsys.readouterr().out


def test_ensembles_and_folds_have_the_same_estimate_before_and_after_training(in_folder, capsys):
    """Before training, the networks are built from the configuration; afterwards, they are read from files."""
    mirrored = {"members": ["net"], "symmetries": "flips", "scales": [1.0, 2.0]}
    project(in_folder, {"mirrored": mirrored}, **UNET, folds=2)
    for name, speed in (("net", 2.0), ("mirrored", 8.0)):
        record(name, "alone", replace(MEASURED, wall_s=speed))
    assert main(["estimate", "a.tif"]) == 0
    before = capsys.readouterr().out
    assert [line.split(":")[0] for line in before.splitlines() if "speed from" in line] == ["net", "mirrored"]
    twice = {"members": [UNET, UNET], "scales": [1.0], "symmetries": "none"}
    write_network(in_folder / "results/models/net", "ensemble", **twice)
    both = mirrored | {"members": [{"architecture": "ensemble", "options": twice}]}
    write_network(in_folder / "results/models/mirrored", "ensemble", **both)
    assert main(["estimate", "a.tif"]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize("text", ["[", None])
def test_a_missing_or_damaged_configuration_is_an_error_of_one_line(in_folder, capsys, text):
    if text:
        (in_folder / "config").mkdir()
        (in_folder / "config" / "config.yaml").write_text(text)
    assert main(["estimate", "a.tif"]) == 1
    reason = "config/config.yaml: line 1: expected the node content" if text else "config/config.yaml: cannot be read"
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: estimate: ")
    assert reason in line
