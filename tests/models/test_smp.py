"""Networks of segmentation_models_pytorch: measured geometry, and exact tiles where it says so."""

import sys

import numpy as np
import pytest
import torch

import models
from pipeline.networks.model_sheet import model_sheet
from pipeline.networks.weights_file import load_network
from tests.support.networks import network_with_batch_stats, randomize_statistics, write_network
from tests.support.prediction import logits_of_the_whole, logits_of_tiles

pytestmark = pytest.mark.slow


# Stride and context; None: squeeze and excitation, attention, group normalization, aligned corners, pooled images
GEOMETRIES = {
    "unet/resnet18": (32, 281),
    "unet/mobilenet_v2": (32, 309),
    "unet/mobileone_s0": (32, 299),
    "unet/tu-resnet10t": (32, 163),
    "linknet/resnet18": (32, 249),
    "unet/mobileone_s4": (32, None),
    "unet/efficientnet-b0": (32, None),
    "unet/tu-mobilenetv3_small_050": (32, None),
    "unet/mit_b0": (32, None),
    "manet/resnet18": (32, None),
    "fpn/resnet18": (32, None),
    "segformer/mobilenet_v2": (32, None),
    "pspnet/resnet18": (8, None),
    "deeplabv3plus/resnet18": (16, None),
    "pan/resnet18": (128, None),
}


@pytest.mark.parametrize(("variant", "expected"), GEOMETRIES.items())
def test_strides_and_contexts_are_measured_and_two_tilings_agree(variant, expected):
    torch.manual_seed(0)
    network = models.build(f"smp/{variant}", in_channels=1, num_classes=4)
    geometry = network.geometry
    assert (geometry.stride_px, geometry.context_px) == expected
    if geometry.context_px is not None:
        assert_tilings_of_a_strip_agree(randomize_statistics(network).double().eval())


@torch.inference_mode()
def assert_tilings_of_a_strip_agree(network, cells=5):
    stride, halo = network.geometry.stride_px, network.geometry.halo_px
    image = torch.rand(1, 1, stride, 2 * halo + cells * stride, dtype=torch.float64)

    def tiled(*counts):
        logits, first = [], 0
        for count in counts:
            window = image[..., first : first + count * stride + 2 * halo]
            logits.append(network(window)[..., halo : halo + count * stride])
            first += count * stride
        return torch.cat(logits, dim=-1)

    whole = tiled(cells)
    assert len(whole.argmax(dim=1).unique()) > 1
    for counts in ((2, 3), (1, 2, 2)):
        torch.testing.assert_close(tiled(*counts), whole, rtol=0, atol=1e-10 * float(whole.abs().max()))
        assert torch.equal(tiled(*counts).argmax(dim=1), whole.argmax(dim=1))


@pytest.mark.parametrize(
    ("variant", "channels"), [("unet/resnet18", 1), ("unet/resnet18", 2), ("unet/mit_b0", 3), ("unet/tu-resnet10t", 5)]
)
def test_a_network_of_any_channels_is_described_without_memory(variant, channels):
    sheet = model_sheet(f"smp/{variant}", in_channels=channels, num_classes=3)
    assert sheet.parameters > 10**6
    assert sheet.options["decoder_channels"] == (256, 128, 64, 32, 16)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_network_is_read_as_it_was_written(tmp_path, in_channels):
    weights = write_network(tmp_path, "smp/unet/resnet18", in_channels=in_channels)
    network, card = load_network(weights)
    assert (card.in_channels, card.geometry) == (in_channels, network.geometry)


def test_tiled_equals_whole(generator):
    network = network_with_batch_stats("smp/unet/resnet18", num_classes=3)
    image = generator.random((1, 70, 45))
    double = network.double()
    tiled = logits_of_tiles(double, image, 32)
    np.testing.assert_allclose(tiled, logits_of_the_whole(double, image), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smp/unet", {}, "write smp/ARCHITECTURE/ENCODER"),
        ("smp/resnet/unet", {}, "unknown model 'smp/resnet/unet'; available: smp/unet, "),
        ("smp/unet/resnet19", {}, "Wrong encoder name `resnet19`"),
        ("smp/unet/resnet18", {"width": 3}, "has no option 'width'; available: encoder_depth"),
        ("smp/unet/tu-swin_tiny_patch4_window7_224", {}, "does not .Input height .* doesn't match model"),
    ],
)
def test_a_wrong_name_or_option_is_an_error(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, in_channels=1, num_classes=2, options=options)


def test_a_missing_library_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ValueError, match="need the extra zoo: pip install"):
        models.build("smp/unet/resnet18", in_channels=1, num_classes=2)
