"""Networks of segmentation_models_pytorch have measured geometry and exact tiles."""

import sys

import numpy as np
import pytest
import torch

import models
from tests.support.networks import network_with_batch_stats
from tests.support.prediction import logits_of_the_whole, logits_of_tiles

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return network_with_batch_stats("smp/unet/resnet18", num_classes=3)


def test_stride_and_context_are_measured(network):
    assert network.geometry.stride_px == 32
    assert 250 < network.geometry.context_px < 320
    assert models.build("smp/fpn/resnet18", in_channels=1, num_classes=2).geometry.context_px is None  # group norm


def test_tiled_equals_whole(network, generator):
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
    ],
)
def test_a_wrong_name_or_option_is_an_error(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, in_channels=1, num_classes=2, options=options)


def test_a_missing_library_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ValueError, match="need the extra zoo: pip install"):
        models.build("smp/unet/resnet18", in_channels=1, num_classes=2)
