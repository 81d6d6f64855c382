"""A folded network is the same function, in float64, for every architecture and for networks that cannot be folded."""

import copy

import pytest
import torch
from torch import nn

from models.base.folding import fold_batch_norm
from models.base.geometry import Geometry
from tests.support.networks import PER_PIXEL, network_with_batch_stats, randomize_statistics, thin_options


def batch_norms_in(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def image_for(network, cells=5):
    geometry = network.geometry
    side = geometry.input_px(2 * geometry.trim_px + cells * geometry.stride_px)
    return torch.randn(2, network.in_channels, side, side, dtype=torch.float64)


@pytest.mark.parametrize("name", [*PER_PIXEL, "ensemble"])
@torch.no_grad()
def test_logits_are_equal_and_all_normalizations_are_folded_once(name):
    network = network_with_batch_stats(name, num_classes=3, **thin_options(name)).double()
    image = image_for(network)
    before, auxiliary = network(image), batch_norms_in(network.auxiliary) if getattr(network, "auxiliary", None) else 0
    count = batch_norms_in(network)
    assert fold_batch_norm(network) == count - auxiliary
    assert batch_norms_in(network) == auxiliary
    torch.testing.assert_close(network(image), before, rtol=1e-9, atol=1e-9)


class Forked(nn.Module):
    """The output of a convolution is used with and without normalization: folding would change the logits."""

    in_channels = 1
    geometry = Geometry(stride_px=1, context_px=1)

    def __init__(self):
        super().__init__()
        self.convolve, self.normalize = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, image):
        made = self.convolve(image)
        return self.normalize(made) + made


@torch.no_grad()
def test_a_network_whose_logits_would_change_is_not_folded():
    network = randomize_statistics(Forked()).eval()
    before = copy.deepcopy(network.state_dict())
    assert fold_batch_norm(network) == 0
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


class Shared(Forked):
    """One normalization after two convolutions."""

    def forward(self, image):
        made = self.normalize(self.convolve(image))
        return self.normalize(self.convolve(made[:, :1]))


@torch.no_grad()
def test_a_normalization_that_is_used_twice_is_not_folded():
    network = randomize_statistics(Shared()).double().eval()
    image = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    before = network(image)
    fold_batch_norm(network)
    torch.testing.assert_close(network(image), before, rtol=1e-12, atol=1e-12)


class Clipped(Forked):
    """The output of the convolution is clipped in place before its normalization, at values that noise lacks."""

    def __init__(self):
        super().__init__()
        self.clip = nn.Hardtanh(-1e3, 1e3, inplace=True)

    def forward(self, image):
        return self.normalize(self.clip(self.convolve(image)))


class WithActivation(nn.BatchNorm2d):
    """Batch normalization with an activation inside, as in timm."""

    def forward(self, image):
        return super().forward(image).clamp(-1e3, 1e3)


class ClippedInside(Forked):
    """The same inside of the normalization."""

    def __init__(self):
        super().__init__()
        self.normalize = WithActivation(2)

    def forward(self, image):
        return self.normalize(self.convolve(image))


@pytest.mark.parametrize("kind", [Clipped, ClippedInside])
@torch.no_grad()
def test_an_activation_that_noise_does_not_reach_is_kept(kind):
    network = randomize_statistics(kind()).double().eval()
    image = 1e6 * torch.randn(1, 1, 9, 9, dtype=torch.float64)
    before = network(image)
    assert fold_batch_norm(network) == 0
    torch.testing.assert_close(network(image), before, rtol=0, atol=0)
