"""Tiled prediction equals that of the whole slide.

The oracle pads the whole slide with numpy and runs the bare network over it once; nothing of the tiling is used.
"""

import math

import numpy as np
import pytest
import tifffile
import torch

from pipeline.base.errors import SlidemillError
from pipeline.prediction import forward as forward_module
from pipeline.prediction.forward import Forward, Windows, label, logits_of, predict_image
from pipeline.slides.intensity import measure_intensities, normalize
from pipeline.tiling.grid import Cut, Grid
from pipeline.tiling.mirror_padding import read_mirrored
from tests.support.networks import PER_PIXEL, has_finite_context, network_with_batch_stats, thin_options
from tests.support.prediction import assert_equal_but_for_ties, logits_of_the_whole, logits_of_tiles

WITH_FINITE_CONTEXT = [
    *((name, thin_options(name) | {"width": 2}) for name in PER_PIXEL if has_finite_context(name)),
    ("unet", {"width": 4, "padding": "same"}),
    ("unet", {"width": 4, "padding": "valid"}),
    ("unet", {"width": 4, "depth": 2, "padding": "same", "normalization": "none"}),
    ("unet", {"width": 4, "depth": 3, "padding": "valid"}),
]


@pytest.mark.parametrize(("name", "options"), WITH_FINITE_CONTEXT)
@pytest.mark.parametrize("shape", [(150, 71), (40, 170), (17, 5)])
def test_tiled_logits_equal_those_of_the_whole_slide(name, options, shape, generator):
    network = network_with_batch_stats(name, num_classes=3, **options).double()
    image = generator.random((1, *shape))
    for mirror_px, tile_px in ((0, 64), (32, 64), (32, 100), (500, 100)):
        whole = logits_of_the_whole(network, image, mirror_px)
        tiled = logits_of_tiles(network, image, tile_px, mirror_px)
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), WITH_FINITE_CONTEXT[:1])
def test_a_halo_below_the_context_changes_the_logits(name, options, generator):
    """The test above can fail: with a smaller halo, the logits differ."""
    network = network_with_batch_stats(name, num_classes=3, **options).double()
    image = generator.random((1, 128, 128))
    grid = Grid(
        shape=(128, 128),
        tile=(64, 64),
        halo_px=network.geometry.halo_px - 16,
        surround_px=network.geometry.halo_px - 16,
        stride_px=16,
    )
    tile = list(grid.tiles())[3]
    window = read_mirrored(lambda rows, columns: image[:, rows, columns], (128, 128), tile.read)
    part = logits_of(network, torch.from_numpy(window)[None], tile.cut)[0].numpy()
    whole = logits_of_the_whole(network, image, grid.surround_px)[:, *tile.write.slices]
    assert np.abs(part - whole).max() > 1e-10


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_labels_of_a_real_micrograph_are_those_of_one_pass_in_float32(padding, data):
    pixels = tifffile.imread(data / "isbi2012" / "images" / "20.tif")[None]
    image = normalize(pixels, measure_intensities(pixels))
    network = network_with_batch_stats("unet", num_classes=3, width=8, padding=padding)
    whole = logits_of_the_whole(network, image)
    labels = predict_image(network, image, num_classes=3, tile_px=192)
    assert_equal_but_for_ties(labels, whole)


@pytest.fixture
def small_memory(monkeypatch):
    """Return a function that limits the pixels that fit into the memory of the device; the result lists all tries."""

    def limit(network, largest_px):
        assert network.geometry.stride_px  # measured before the class is patched
        tried, forward = [], type(network).forward

        def checked(self, image):
            tried.append((len(image), *image.shape[2:]))
            if math.prod(tried[-1]) > largest_px:
                raise torch.AcceleratorError("CUDA error: out of memory", 2)
            return forward(self, image)

        monkeypatch.setattr(type(network), "forward", checked)
        return tried

    return limit


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_batches_and_windows_are_halved_if_memory_is_short(padding, small_memory, generator):
    """Sizes that did not fit are not tried again, for the same window or the next."""
    network = network_with_batch_stats("unet", num_classes=3, width=2, depth=2, padding=padding).double()
    halo = network.geometry.halo_px
    cut = Cut.all_sides(halo) if padding == "valid" else Cut(top=4, left=halo, bottom=0, right=8)
    shape = cut.top + cut.bottom + 4 * 19, cut.left + cut.right + 4 * 15
    windows = generator.normal(size=(3, 1, *shape))
    expected = logits_of(network, torch.from_numpy(windows), cut)
    largest_px = windows[0].size * 4 // 5
    tried, forward = small_memory(network, largest_px), Forward(network)
    for again in range(2):
        logits = forward(Windows.normalized(windows), cut)
        failed = [shape for shape in tried if math.prod(shape) > largest_px]
        assert len(failed) == (0 if again else len(set(map(math.prod, failed))))
        assert len(tried) > 3
        tried.clear()
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


def test_a_copy_to_the_device_that_does_not_fit_is_halved(monkeypatch, generator):
    network = network_with_batch_stats("unet", width=2)
    windows = generator.normal(size=(4, 1, 208, 208)).astype(np.float32)
    expected = logits_of(network, torch.from_numpy(windows), Cut.all_sides(96))
    copy = forward_module.to_device

    def small(windows, weight):
        if windows.shape[0] > 1:
            raise torch.AcceleratorError("CUDA error: out of memory", 2)
        return copy(windows, weight)

    monkeypatch.setattr(forward_module, "to_device", small)
    torch.testing.assert_close(Forward(network)(Windows.normalized(windows), Cut.all_sides(96)), expected)


def test_a_piece_that_does_not_fit_is_an_error(small_memory):
    network = network_with_batch_stats("unet", width=2)
    small_memory(network, 0)
    with pytest.raises(SlidemillError, match="208 x 208 px does not fit into the memory of cpu; lower tiling"):
        Forward(network)(Windows.normalized(np.zeros((2, 1, 208, 224), np.float32)), Cut.all_sides(96))


def test_other_errors_of_the_network_are_raised():
    with pytest.raises(RuntimeError, match="channels"):
        Forward(network_with_batch_stats("unet", width=2))(
            Windows.normalized(np.zeros((2, 3, 208, 224), np.float32)), Cut.all_sides(96)
        )


def test_windows_of_global_context_are_not_halved(small_memory):
    network = network_with_batch_stats("pspnet", width=4)
    small_memory(network, 64 * 64 - 1)
    with pytest.raises(SlidemillError, match="a window of 64 x 64 px does not fit"):
        Forward(network)(Windows.normalized(np.zeros((2, 1, 64, 64), np.float32)), Cut.all_sides(0))


def test_a_pixel_is_uncertain_below_three_to_one(generator):
    logits = torch.from_numpy(generator.normal(size=(2, 4, 30, 31)))
    best, second = logits.softmax(dim=1).topk(2, dim=1).values.unbind(dim=1)
    np.testing.assert_array_equal(label(logits)[1], best < 3 * second)
