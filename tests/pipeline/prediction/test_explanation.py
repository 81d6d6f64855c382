"""Explanations of networks with known behaviour, and of every architecture."""

from types import MappingProxyType

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

import models
from models.base.geometry import Geometry, round_up
from models.base.interface import SegmentationModel
from pipeline.__main__ import main
from pipeline.base.files import read_json
from pipeline.prediction.explained.responses import (
    first_layer_filters,
    layers_to_show,
    occlusion_map,
    receptive_window,
    responses,
    strongest_responses,
)
from pipeline.tiling.grid import Cut, Grid, Region
from tests.support.networks import PER_PIXEL, network_with_batch_stats, thin_options, write_network

PATTERN = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]], np.float32)
IDENTITY = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)


class TwoPixels(SegmentationModel):
    """A pixel is an object if the pixels two rows above it, straight and to the right, are bright."""

    paper = "made by hand"
    narrow_options = MappingProxyType({})

    def __init__(self, *, in_channels=1, num_classes=2):
        super().__init__()
        self.look = nn.Conv2d(in_channels, num_classes, kernel_size=5, padding=2)
        nn.init.zeros_(self.look.weight)
        nn.init.zeros_(self.look.bias)
        with torch.no_grad():
            self.look.weight[-1, :, 0, 2:4] = 4.0
        self.head = nn.Identity()

    def forward(self, image):
        return self.head(self.look(image))


class Detector(SegmentationModel):
    """Its second layer, at half the resolution, responds to the pattern; its first is the identity."""

    paper = "made by hand"
    stride_px = 2
    narrow_options = MappingProxyType({})

    def __init__(self, *, in_channels=1, num_classes=2):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 1, kernel_size=3, padding=1, bias=False)
        self.second = nn.Conv2d(1, num_classes, kernel_size=3, stride=2, padding=1, bias=False)
        with torch.no_grad():
            self.first.weight[:] = torch.from_numpy(IDENTITY)
            self.second.weight[:] = 0
            self.second.weight[-1] = torch.from_numpy(PATTERN)

    def forward(self, image):
        return nn.functional.interpolate(self.second(self.first(image)), scale_factor=2.0, mode="nearest")


def region(top, left, rows, columns):
    return Region(top=top, left=left, bottom=top + rows, right=left + columns)


def occlusion(image, *, at, side, step, batch=16):
    """Return the occlusion map of a pixel of the network that looks at two pixels."""
    network = TwoPixels(in_channels=1, num_classes=2).eval()
    sizes = {"cut": Cut.all_sides(2), "occluder_px": side, "step_px": step, "batch": batch}
    return occlusion_map(network, image, lambda shown: shown[:, 1, *at], fill=[0.0], **sizes)


@pytest.mark.parametrize("batch", [1, 7])
def test_the_map_is_highest_at_pixels_that_the_decision_depends_on(batch):
    """Pixel (10, 10) of the window is (8, 8) less the halo; only (8, 10) and (8, 11) count, 4 of the logit each."""
    falls = occlusion(np.ones((1, 21, 24), np.float32), at=(8, 8), side=1, step=1, batch=batch)
    expected = np.zeros((21, 24))
    expected[8, 10:12] = 1 / (1 + np.exp(-8)) - 1 / (1 + np.exp(-4))
    np.testing.assert_allclose(falls, expected, atol=1e-6)


def test_a_pixel_has_the_mean_over_the_squares_that_hid_it():
    """Squares of 2 px, 1 px apart: of those four that hide (8, 10), two hide (8, 11) as well."""
    falls = occlusion(np.ones((1, 21, 24), np.float32), at=(8, 8), side=2, step=1)
    all_of_it, half, none = (1 / (1 + np.exp(-logit)) for logit in (8, 4, 0))
    assert falls[8, 10] == pytest.approx(all_of_it - (half + none) / 2, abs=1e-6)
    assert falls[9, 9] == pytest.approx((all_of_it - half) / 4, abs=1e-6)
    assert falls[10, 10] == 0


def test_the_map_is_zero_beyond_the_context(generator):
    network = network_with_batch_stats("unet", width=2, depth=2)
    place = region(41, 30, 1, 1)
    image = generator.random((1, 100, 100)).astype(np.float32)
    halo = network.geometry.halo_px
    sizes = {"cut": Cut.all_sides(halo), "occluder_px": 4, "step_px": 4, "batch": 32}
    falls = occlusion_map(network, image, lambda shown: shown[:, 1, 41 - halo, 30 - halo], fill=[5.0], **sizes)
    field, _ = receptive_window(network, place, place, shape=(100, 100), mirror_px=halo)
    within = np.zeros_like(falls, dtype=bool)
    within[max(field.top, 0) : field.bottom, max(field.left, 0) : field.right] = True
    assert np.abs(falls[within]).max() > 1e-6
    assert np.all(falls[~within] == 0)


def test_the_squares_hide_every_pixel_whatever_their_size():
    for side, step in ((5, 3), (40, 9), (7, 7), (1, 1), (3, 2)):
        falls = occlusion(np.zeros((1, 11, 17), np.float32), at=(5, 5), side=side, step=step, batch=9)
        assert np.all(falls == 0)  # NaN where a pixel was never hidden


@pytest.mark.parametrize(
    ("place", "expected"), [((17, 3, 1, 1), (-8, -24, 56, 56)), ((8, 0, 9, 8), (-16, -24, 64, 56))]
)
def test_the_window_is_whole_cells_and_their_halo(place, expected):
    network = network_with_batch_stats("unet", width=1, depth=3)
    assert (network.geometry.stride_px, network.geometry.halo_px) == (8, 48)
    grown = (expected[0] - 24, expected[1] - 24, expected[2] + 48, expected[3] + 48)
    seen = receptive_window(network, region(*place), region(0, 0, 64, 64), shape=(300, 300), mirror_px=48)
    assert seen == (region(*grown), Cut.all_sides(48))


def test_the_window_ends_where_that_of_prediction_does():
    """Also beyond the lower right corner of a slide whose sides are no whole cells."""
    network = network_with_batch_stats("unet", width=1, depth=3)
    for mirror_px in (0, 16, 100):
        grid = Grid.plan((90, 61), geometry=network.geometry, tile_px=8, mirror_px=mirror_px)
        for tile in grid.tiles():
            seen = receptive_window(network, tile.write, tile.write, shape=(90, 61), mirror_px=mirror_px)
            assert seen == (tile.read, tile.cut)


def test_the_window_of_a_global_network_is_the_region():
    network = network_with_batch_stats("unet", width=2, depth=2, normalization="group")
    seen = receptive_window(network, region(9, 9, 1, 1), region(6, 8, 20, 20), shape=(40, 40))
    assert seen == (region(4, 8, 24, 20), Cut.all_sides(0))


def test_filters_are_the_weights_of_the_first_convolution():
    np.testing.assert_array_equal(first_layer_filters(Detector(in_channels=1)), IDENTITY[None, None])
    unet = models.build("unet", in_channels=3, num_classes=2, options={"width": 5})
    assert first_layer_filters(unet).shape == (5, 3, 3, 3)


def test_the_strongest_response_of_a_detector_is_where_its_pattern_is(generator):
    window = generator.normal(0, 0.05, (1, 64, 80)).astype(np.float32)
    for row, column, height in ((20, 30, 1.0), (44, 60, 0.5)):
        window[0, row - 1 : row + 2, column - 1 : column + 2] += height * PATTERN
    network = Detector().eval()
    maps = responses(network, window, layers_to_show(network))
    assert {name: values.shape for name, values in maps.items()} == {"first": (1, 64, 80), "second": (2, 32, 40)}
    found = strongest_responses(maps, (64, 80), channels=2, count=2, apart_px=8, border=Cut.all_sides(0))
    second = [one for one in found if one.layer == "second"]
    assert [one.channel for one in second] == [1, 1]  # channel 0 is constant
    for one, (row, column, height) in zip(second, ((20, 30, 1.0), (44, 60, 0.5)), strict=True):
        assert abs(one.row - row) <= 1
        assert abs(one.column - column) <= 1
        assert one.value == pytest.approx(9 * height, abs=0.8)


def test_responses_in_the_halo_are_left_out():
    values = np.zeros((1, 32, 32), np.float32)
    values[0, 2, 20], values[0, 16, 16] = 9.0, 1.0
    found = strongest_responses({"a": values}, (64, 64), channels=1, count=1, apart_px=4, border=Cut.all_sides(8))
    assert [(one.row, one.column, one.value) for one in found] == [(32, 32, 1.0)]


def explain(folder, weights, *flags):
    slide = ("--slide", str(folder / "a.tif"), "--network", str(weights), "--threads", "1")
    return main(["explain", *slide, "--output", str(folder / "shown"), *flags])


@pytest.mark.parametrize("name", PER_PIXEL)
def test_the_layers_of_every_architecture_can_be_shown(generator, name):
    torch.manual_seed(0)
    network = models.build(name, in_channels=1, num_classes=2, options=thin_options(name)).eval()
    stride, margin = network.stride_px, network.margin_px
    network.geometry = Geometry(  # not measured: the context does not matter here
        stride_px=stride, context_px=None, margin_px=margin, remainder_px=network.remainder_px
    )
    side = 2 * round_up(2 * margin + stride, stride)
    maps = responses(network, generator.random((1, side, side)).astype(np.float32), layers_to_show(network))
    assert list(maps) == layers_to_show(network)
    assert len(maps) == 2
    assert all(np.isfinite(values).all() and values.size for values in maps.values())
    found = strongest_responses(maps, (side, side), channels=2, count=3, apart_px=4, border=Cut.all_sides(0))
    assert found
    assert all(0 <= one.row < side and 0 <= one.column < side for one in found)
    assert first_layer_filters(network).shape[1] == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"depth": 1}),
        ("unet", {"depth": 1, "padding": "valid"}),
        ("unet", {"depth": 1, "normalization": "group"}),
        ("sliding_window", {"hidden": 2}),
    ],
)
def test_a_network_is_explained_in_figures_and_numbers(tmp_path, generator, name, options):
    weights = write_network(tmp_path / "network", name, width=2, **options)
    tifffile.imwrite(tmp_path / "a.tif", generator.integers(0, 255, (90, 100)).astype(np.uint8))
    assert explain(tmp_path, weights, "--region", "10,20,41,40", "--place", "30,40", "--occluder-px", "24") == 0
    written = sorted(path.name for path in (tmp_path / "shown").iterdir())
    assert written == ["explanation.json", "filters.png", "occlusion.png", "responses.png"]
    for figure in written[1:]:
        assert (tmp_path / "shown" / figure).read_bytes().startswith(b"\x89PNG")
    content, card = (read_json(path) for path in (tmp_path / "shown" / written[0], weights.with_name("model.json")))
    assert content["place"] == {"top": 30, "left": 40, "bottom": 31, "right": 41}
    assert 0.5 <= content["occlusion"]["probability"] <= 1
    assert all(9 <= one["row"] <= 52 and 19 <= one["column"] <= 61 for one in content["responses"])
    if card["context_px"] is not None:
        assert abs(content["occlusion"]["row"] - 30) <= card["context_px"] + 24 + card["stride_px"]


def test_an_ensemble_can_be_explained(tmp_path, generator):
    member = {"architecture": "unet", "options": {"width": 2, "depth": 1}}
    weights = write_network(
        tmp_path / "network", "ensemble", members=[member, member], scales=[1, 0.5, 2], symmetries="flips"
    )
    tifffile.imwrite(tmp_path / "a.tif", generator.integers(0, 255, (70, 60)).astype(np.uint8))
    assert explain(tmp_path, weights, "--region", "8,8,32,32", "--occluder-px", "24") == 0
    layers = {one["layer"] for one in read_json(tmp_path / "shown" / "explanation.json")["responses"]}
    assert len(layers) == 2
    assert any(layer.startswith("members.0.") for layer in layers)


def test_the_default_region_has_the_highest_contrast(tmp_path):
    """A large dark slide with one bright square."""
    weights = write_network(tmp_path / "network", "unet", width=2, depth=1)
    pixels = np.zeros((900, 1000), np.uint8)
    pixels[700:720, 800:820] = 200
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert explain(tmp_path, weights, "--occluder-px", "16") == 0
    found = read_json(tmp_path / "shown" / "explanation.json")["region"]
    assert found["top"] <= 700
    assert found["bottom"] >= 720
    assert found["left"] <= 800
    assert found["right"] >= 820
    assert (found["bottom"] - found["top"], found["right"] - found["left"]) == (256, 256)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--place", "10"], "--place is ROW,COLUMN or ROW,COLUMN,ROWS,COLUMNS in whole numbers, got '10'"),
        (["--place", "1.5,2"], "in whole numbers, got '1.5,2'"),
        (["--region", "1,2"], "--region is ROW,COLUMN,ROWS,COLUMNS in whole numbers, got '1,2'"),
        (["--region", "0,0,0,9"], "--region 0,0,0,9 is not on "),
        (["--place", "90,5"], "--place 90,5 is not on "),
        (["--region", "0,0,20,20", "--place", "30,5"], "--place 30,5,1,1 is not within --region 0,0,20,20"),
        (["--region", "0,0,90,100", "--memory-mb", "851"], "is more than --memory-mb allows"),
        (["--memory-mb", "800"], "which this network and its libraries alone take"),
        (["--config", '{"channels": [0, 1]}'], "the network sees 1 channels, --config has 2"),
        (["--occluder-px", "-3"], "--occluder-px must be at least 0, got -3"),
    ],
)
def test_wrong_flags_are_an_error_of_one_line(tmp_path, capsys, flags, message):
    weights = write_network(tmp_path / "network", width=8, depth=2)
    tifffile.imwrite(tmp_path / "a.tif", np.eye(100, dtype=np.uint8)[:90])
    assert explain(tmp_path, weights, *flags) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: explain: ")
    assert message in last
    assert not (tmp_path / "shown").exists()
