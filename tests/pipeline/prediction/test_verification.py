"""Networks whose tiles equal the whole pass the check; wrong geometry fails it with the numbers."""

import re

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json
from pipeline.prediction.verification import Check, check_exactness, one_pass, richest_piece, small_grid
from pipeline.project.stage_settings import stage_config
from pipeline.settings.schema import Settings
from pipeline.tiling.grid import Grid
from tests.support.commands import run_command
from tests.support.networks import CLASSES, network_with_batch_stats, write_network
from tests.support.prediction import logits_of_the_whole

SETTINGS = Settings(classes=CLASSES)


def verify(folder, weights, slide):
    """Run tile and verify; return the exit status."""
    plan, configs = folder / "plan.json", {stage: stage_config(SETTINGS, stage) for stage in ("tile", "verify")}
    files = {"slide": slide, "model": weights.with_name("model.json"), "output": plan}
    assert run_command("tile", sample="a", **files, memory_mb=4000, config=configs["tile"]) == 0
    files = {"network": weights, "plan": plan, "output": folder / "verification.json"}
    return run_command("verify", **files, threads=2, memory_mb=4000, config=configs["verify"])


def edit_card(weights, key, value):
    card = weights.with_name("model.json")
    text, count = re.subn(rf'"{key}": \d+', f'"{key}": {value}', card.read_text())
    assert count == 1
    card.write_text(text)


@pytest.mark.parametrize(("name", "options"), [("unet", {"width": 4}), ("unet", {"width": 4, "padding": "valid"})])
@pytest.mark.slow
def test_a_network_with_its_true_geometry_passes_on_a_real_slide(tmp_path, name, options, data):
    weights = write_network(tmp_path / "network", name, **options)
    assert verify(tmp_path, weights, data / "formats/derived/CMU-1-Small-Region_pyramid.ome.tif") == 0
    verification = read_json(tmp_path / "verification.json")
    assert verification["law"] == "holds"
    exact, rounded = verification["checks"]
    assert (exact["precision"], exact["flips"]) == ("float64", 0)
    assert exact["max_difference"] <= 1e-10
    assert (rounded["precision"], rounded["flips_outside_ties"]) == ("float32", 0)
    assert exact["max_difference"] < rounded["max_difference"] <= 1e-4  # 0 would mean that nothing was compared
    assert Grid.from_dict(verification["grid"]).count >= 9
    assert len(verification["provenance"]["sha256"]["weights"]) == 64


@pytest.mark.parametrize(("key", "value"), [("context_px", 8), ("stride_px", 8)])
@pytest.mark.slow
def test_a_card_with_a_wrong_geometry_fails(tmp_path, key, value, generator, capsys):
    weights = write_network(tmp_path / "network", width=4)
    tifffile.imwrite(tmp_path / "a.tif", generator.integers(0, 255, (500, 500)).astype(np.uint8))
    edit_card(weights, key, value)
    assert verify(tmp_path, weights, tmp_path / "a.tif") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: verify: {tmp_path}/a.tif: tiled does not equal whole in float64: logits differ by")
    verification = read_json(tmp_path / "verification.json")
    assert verification["law"] == "broken"
    assert verification["checks"][0]["flips"] > 0


def test_a_network_with_global_context_is_only_measured(tmp_path, generator):
    weights = write_network(tmp_path / "network", "pspnet", width=2)
    tifffile.imwrite(tmp_path / "a.tif", generator.integers(0, 255, (300, 280)).astype(np.uint8))
    assert verify(tmp_path, weights, tmp_path / "a.tif") == 0
    verification = read_json(tmp_path / "verification.json")
    assert (verification["law"], verification["checks"]) == ("does not apply", [])
    assert 0 < verification["mismatch"] < 1


def test_an_unreadable_slide_fails_with_the_reason_of_its_plan(tmp_path, capsys):
    weights = write_network(tmp_path / "network", width=2, depth=2)
    (tmp_path / "a.tif").write_bytes(b"nothing")
    assert verify(tmp_path, weights, tmp_path / "a.tif") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: tile: {tmp_path}/a.tif: ")


def test_one_pass_gives_the_logits_of_the_whole(generator):
    network = network_with_batch_stats("unet", num_classes=3, width=2, padding="valid").double()
    image = generator.random((1, 70, 90)).astype(np.float32)
    grid = Grid(shape=(70, 90), tile=(32, 32), halo_px=network.geometry.halo_px, stride_px=16)
    expected = logits_of_the_whole(network, image.astype(np.float64))
    np.testing.assert_allclose(one_pass(network, image, grid)[0].numpy(), expected, rtol=0, atol=1e-12)


def test_the_check_does_not_change_the_network(generator):
    network = network_with_batch_stats("unet", width=2, depth=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    grid = Grid(shape=(48, 48), tile=(16, 16), halo_px=network.geometry.halo_px, stride_px=4)
    check_exactness(network, generator.random((1, 48, 48)).astype(np.float32), grid, "float64")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("precision", "difference", "flips", "outside", "holds"),
    [
        ("float64", 1e-11, 0, 0, True),
        ("float64", 1e-9, 0, 0, False),
        ("float64", 1e-11, 1, 0, False),
        ("float32", 1e-5, 3, 0, True),
        ("float32", 1e-5, 3, 1, False),
        ("float32", 1e-3, 0, 0, False),
        ("float32", float("nan"), 0, 0, False),
    ],
)
def test_which_differences_pass(precision, difference, flips, outside, holds):
    numbers = {"max_difference": difference, "flips": flips, "flips_outside_ties": outside}
    tolerance = {"float64": 1e-10, "float32": 1e-4}[precision]
    assert Check(precision=precision, tolerance=tolerance, **numbers).holds == holds


@given(
    rows=st.integers(1, 3000),
    columns=st.integers(1, 3000),
    stride=st.sampled_from([1, 2, 8, 16, 32]),
    halo=st.integers(0, 12),
    largest_px=st.integers(10_000, 4_000_000),
)
def test_a_small_grid_has_nine_tiles_and_fits_the_budget(rows, columns, stride, halo, largest_px):
    planned = Grid(shape=(rows, columns), tile=(stride, stride), halo_px=halo * stride, stride_px=stride)
    try:
        grid = small_grid(planned, largest_px=largest_px)
    except ConfigError:
        assert (3 * stride + 2 * halo * stride) ** 2 > largest_px
        return
    assert np.prod([length + 2 * grid.halo_px for length in grid.shape]) <= largest_px
    for length, side, whole in zip(grid.shape, grid.tile, planned.shape, strict=True):
        assert length <= whole
        assert -(-length // side) >= min(3, -(-whole // stride))


def test_the_richest_piece_contains_the_object(generator):
    image = np.full((1, 900, 700), 100, dtype=np.uint8)
    image[0, 600:700, 500:600] = generator.integers(0, 255, (100, 100))
    place = richest_piece(lambda rows, columns: image[:, rows, columns], (900, 700), (300, 300))
    assert place.top <= 600
    assert place.bottom >= 700
    assert place.left <= 500
    assert place.right >= 600
