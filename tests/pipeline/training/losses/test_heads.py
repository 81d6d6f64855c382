"""The losses of heads by hand; unknown pixels have no effect."""

import math

import pytest
import torch

from pipeline.settings.networks import LossConfig
from pipeline.slides.labels import IGNORED
from pipeline.training.losses.heads import HeadLosses, smooth_l1


def test_the_losses_by_hand():
    """Differences of 0.5 and -2, and of 0 and 1: 0.125 and 1.5, and 0 and 0.5."""
    channels, values = torch.tensor([[[[1.0, -2.0]], [[0.25, 2.0]]]]), torch.tensor([[[[0.5, 0.0]], [[0.25, 1.0]]]])
    target = torch.zeros(1, 1, 2, dtype=torch.int64)
    torch.testing.assert_close(smooth_l1(channels, values, target), torch.tensor([1.625 / 2, 0.5 / 2]))
    total, losses = HeadLosses(LossConfig(distance=2.0, boundary=4.0), ("distance", "boundary"))(
        channels, values, target
    )
    assert losses.tolist() == [1.625 / 2, 0.5 / 2]
    assert total == 2 * 1.625 / 2 + 4 * 0.5 / 2


@pytest.mark.parametrize("rubbish", [1e4, math.nan, -math.inf])
def test_unknown_pixels_change_neither_value_nor_gradient(rubbish):
    torch.manual_seed(0)
    channels, values = torch.randn(2, 1, 6, 7), torch.rand(2, 1, 6, 7)
    target = torch.where(torch.rand(2, 6, 7) < 0.3, IGNORED, 1)
    other = torch.where((target == IGNORED)[:, None], rubbish, channels).requires_grad_()
    channels.requires_grad_()
    for given in (channels, other):
        smooth_l1(given, values, target).sum().backward()
    known = (target != IGNORED)[:, None]
    expected = torch.nn.functional.smooth_l1_loss(channels[known], values[known])
    torch.testing.assert_close(smooth_l1(other, values, target), expected[None])
    assert torch.equal(other.grad, channels.grad)
    assert (other.grad[~known] == 0).all()
    assert smooth_l1(other, values, torch.full_like(target, IGNORED)).tolist() == [0.0]


def test_without_heads_there_is_nothing_to_add():
    channels, target = torch.zeros(1, 0, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64)
    total, losses = HeadLosses(LossConfig(), ())(channels, channels, target)
    assert (float(total), len(losses)) == (0.0, 0)
