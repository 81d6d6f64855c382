"""Networks whose tiles equal the whole pass the check; wrong geometry fails it with the numbers."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.layers.upsampling import upsample
from pipeline.base import paths
from pipeline.base.errors import ConfigError
from pipeline.base.files import read_json
from pipeline.prediction.verification import Check, check_exactness, one_pass, richest_piece, small_grid
from pipeline.project.stage_settings import stage_config
from pipeline.settings.crf import CrfConfig
from pipeline.tiling.grid import Grid
from tests.support.commands import run_command
from tests.support.jobs import Jobs
from tests.support.networks import network_with_batch_stats, write_network
from tests.support.prediction import logits_of_the_whole

VERIFICATION = "verification.json"


def verify(weights, slide, **settings):
    """Run tile and verify in the current folder; return the exit status."""
    jobs = Jobs(weights, **settings)
    jobs.put("a", slide)
    jobs.run("tile")
    files = {"network": weights, "plan": jobs.path(paths.PLAN, "a"), "output": VERIFICATION}
    return run_command("verify", **files, threads=2, memory_mb=4000, config=stage_config(jobs.settings, "verify"))


def edit_card(weights, key, value):
    card = weights.with_name("model.json")
    text, count = re.subn(rf'"{key}": \d+', f'"{key}": {value}', card.read_text())
    assert count == 1
    card.write_text(text)


@pytest.mark.parametrize(("name", "options"), [("unet", {"width": 4}), ("unet", {"width": 4, "padding": "valid"})])
@pytest.mark.slow
def test_a_network_with_its_true_geometry_passes_on_a_real_slide(in_folder, name, options, data):
    weights = write_network(in_folder / "network", name, **options)
    assert verify(weights, data / "formats/derived/CMU-1-Small-Region_pyramid.ome.tif") == 0
    verification = read_json(Path(VERIFICATION))
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
def test_a_card_with_a_wrong_geometry_is_refused(in_folder, key, value, generator, capsys):
    weights = write_network(in_folder / "network", width=4)
    tifffile.imwrite(in_folder / "a.tif", generator.integers(0, 255, (500, 500)).astype(np.uint8))
    edit_card(weights, key, value)
    assert verify(weights, in_folder / "a.tif") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    card = weights.with_name("model.json")
    assert last.startswith(f"error: verify: {card}: {key} is {value}, the network that it describes has")
    assert not Path(VERIFICATION).exists()


def test_a_network_with_global_context_is_only_measured(in_folder, generator):
    weights = write_network(in_folder / "network", "pspnet", width=2)
    tifffile.imwrite(in_folder / "a.tif", generator.integers(0, 255, (300, 280)).astype(np.uint8))
    assert verify(weights, in_folder / "a.tif") == 0
    verification = read_json(Path(VERIFICATION))
    assert (verification["law"], verification["checks"]) == ("does not apply", [])
    assert 0 < verification["mismatch"] < 1


@pytest.mark.parametrize(("architecture", "options"), [("unet", {"depth": 2}), ("pspnet", {})])
def test_a_random_field_is_verified_too(in_folder, generator, architecture, options):
    weights = write_network(in_folder / "network", architecture, width=2, **options)
    tifffile.imwrite(in_folder / "a.tif", generator.integers(0, 255, (100, 90)).astype(np.uint8))
    assert verify(weights, in_folder / "a.tif", masks={"crf": {"radius_px": 3}}) == 0
    verification = read_json(Path(VERIFICATION))
    assert verification["law"] == ("holds" if architecture == "unet" else "does not apply")
    assert [check["precision"] for check in verification["crf"]] == ["float64", "float32"]
    assert all(check["holds"] and check["max_difference"] <= check["tolerance"] for check in verification["crf"])


def test_a_random_field_that_looks_too_short_a_way_is_found(in_folder, generator, capsys, monkeypatch):
    weights = write_network(in_folder / "network", width=2, depth=2)
    tifffile.imwrite(in_folder / "a.tif", generator.integers(0, 255, (100, 90)).astype(np.uint8))
    monkeypatch.setattr(CrfConfig, "reach_px", property(lambda self: self.radius_px))
    assert verify(weights, in_folder / "a.tif", masks={"crf": {"radius_px": 3}}) == 1
    assert read_json(Path(VERIFICATION))["law"] == "broken"
    last = capsys.readouterr().err.splitlines()[-1]
    assert "the random field in blocks is not that of the whole in float64; probabilities differ by up to" in last


def test_an_unreadable_slide_has_no_plan_to_verify(in_folder, capsys):
    weights = write_network(in_folder / "network", width=2, depth=2)
    (in_folder / "a.tif").write_bytes(b"nothing")
    assert verify(weights, in_folder / "a.tif") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: verify: results/plans/net/a.json: there is no plan")


def test_one_pass_gives_the_logits_of_the_whole(generator):
    network = network_with_batch_stats("unet", num_classes=3, width=2, padding="valid").double()
    image = generator.random((1, 70, 90)).astype(np.float32)
    grid = Grid(
        shape=(70, 90),
        tile=(32, 32),
        halo_px=network.geometry.halo_px,
        surround_px=network.geometry.halo_px,
        stride_px=16,
    )
    expected = logits_of_the_whole(network, image.astype(np.float64))
    np.testing.assert_allclose(one_pass(network, image, grid)[0].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("halo_px", "stride_px"), [(4, 4), (32, 2)])
def test_tiles_of_too_little_context_or_another_stride_are_found(halo_px, stride_px, generator):
    network = network_with_batch_stats("unet", width=2, depth=2)
    grid = Grid(
        shape=(90, 90),
        tile=(30 // stride_px * stride_px,) * 2,
        halo_px=halo_px,
        surround_px=halo_px,
        stride_px=stride_px,
    )
    check = check_exactness(network, generator.random((1, 90, 90)).astype(np.float32), grid, "float64")
    assert not check.holds
    assert check.max_difference > 1e-6


def test_the_check_does_not_change_the_network(generator):
    network = network_with_batch_stats("unet", width=2, depth=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    halo = network.geometry.halo_px
    grid = Grid(shape=(48, 48), tile=(16, 16), halo_px=halo, surround_px=halo, stride_px=4)
    check_exactness(network, generator.random((1, 48, 48)).astype(np.float32), grid, "float64")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


SMALL = {"width": 2, "depth": 2}
UNPOOLING = [
    ("segnet", {"width": 2}, True),
    ("unet", SMALL | {"upsampling": "max_unpooling"}, True),
    ("ensemble", {"members": [{"architecture": "unet", "options": SMALL | {"upsampling": "max_unpooling"}}]}, True),
    ("unet", SMALL, False),
]


@pytest.mark.parametrize(("name", "options", "jumps"), UNPOOLING)
def test_max_unpooling_is_exact_in_float64_which_decides(name, options, jumps, generator):
    network = network_with_batch_stats(name, **options)
    geometry = network.geometry
    halo, stride = geometry.halo_px, geometry.stride_px
    grid = Grid(shape=(40, 75), tile=(32, 32), halo_px=halo, surround_px=halo, stride_px=stride)
    image = generator.random((1, 40, 75)).astype(np.float32)
    check = check_exactness(network, image, grid, "float64")
    assert (check.jumps, check.flips, check.holds) == (jumps, 0, True)
    assert 0 < check.max_difference <= 1e-10
    broken = {"tolerance": 1e-4, "max_difference": 1.0, "flips": 9, "flips_outside_ties": 9, "jumps": jumps}
    assert Check(precision="float32", **broken).holds == jumps
    assert not Check(precision="float64", **broken).holds


@torch.no_grad()
def test_a_value_of_max_unpooling_moves_by_a_pixel_where_rounding_decides():
    image = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]], dtype=torch.float64)
    images = image, image + torch.tensor([0.0, 1e-15], dtype=torch.float64)
    pooled = [F.max_pool2d(image, 2, return_indices=True) for image in images]
    first, second = (upsample(values, "max_unpooling", places) for values, places in pooled)
    assert (first - second).abs().max() > 0.99


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
    planned = Grid(
        shape=(rows, columns), tile=(stride, stride), halo_px=halo * stride, surround_px=halo * stride, stride_px=stride
    )
    try:
        grid = small_grid(planned, largest_px=largest_px)
    except ConfigError:
        assert (3 * stride + 2 * halo * stride) ** 2 > largest_px
        return
    assert np.prod([length + 2 * grid.surround_px for length in grid.shape]) <= largest_px
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
