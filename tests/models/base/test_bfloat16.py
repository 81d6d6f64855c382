"""A network in bfloat16 has float32 ends and nearly the same logits."""

import pytest
import torch
from torch import nn

from models.base.bfloat16 import Float32Layer, convert_to_bfloat16
from models.base.folding import fold_batch_norm, noise_for
from models.base.geometry import Geometry
from models.base.interface import SegmentationModel
from tests.support.networks import PER_PIXEL, network_with_batch_stats, thin_options


def exact_in(network):
    return [name for name, module in network.named_modules() if isinstance(module, Float32Layer)]


def types_in(network):
    return {weight.dtype for weight in network.parameters()}


@pytest.mark.parametrize("name", PER_PIXEL)
@torch.no_grad()
def test_every_architecture_has_nearly_the_same_logits(name):
    network = network_with_batch_stats(name, num_classes=3, **thin_options(name))
    fold_batch_norm(network)
    image = noise_for(network)
    exact = network(image)
    convert_to_bfloat16(network)
    assert torch.bfloat16 in types_in(network)
    assert len(exact_in(network)) >= 1
    found = network(image.to(next(network.parameters())))  # the type of windows
    assert found.shape == exact.shape
    assert (found - exact).abs().median() < 0.1 * exact.abs().median()  # a maximum can move, and change a logit much


def test_the_ends_of_a_unet_are_its_first_convolution_and_its_head():
    network = network_with_batch_stats(width=2, depth=2)
    convert_to_bfloat16(network)
    assert exact_in(network) == ["encoder.0.0", "head"]
    assert network(noise_for(network)).dtype == torch.float32
    assert next(network.parameters()).dtype == torch.float32  # the type of windows


@torch.no_grad()
def test_every_member_of_an_ensemble_has_float32_ends():
    network = network_with_batch_stats("ensemble", **thin_options("ensemble"))
    image = noise_for(network)
    exact = network(image)
    convert_to_bfloat16(network)
    assert exact_in(network) == [f"members.{index}.{name}" for index in (0, 1) for name in ("encoder.0.0", "head")]
    torch.testing.assert_close(network(image), exact, rtol=0.1, atol=0.1)


class Forked(nn.Module):
    """Uses the image outside its first convolution too."""

    in_channels = 1
    geometry = Geometry(stride_px=1, context_px=2)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, image):
        return self.last(self.second(torch.cat([self.first(image), image], dim=1)))


@torch.no_grad()
def test_a_network_that_needs_it_is_converted_completely(monkeypatch):
    monkeypatch.setattr("models.base.bfloat16._has_no_members", lambda _: True)
    network = type("Forked", (Forked,), {})()
    SegmentationModel.register(type(network))
    convert_to_bfloat16(network)
    assert types_in(network) == {torch.bfloat16}
    assert network(noise_for(network)).isfinite().all()
