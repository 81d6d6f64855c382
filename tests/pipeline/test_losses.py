"""The loss by hand and against PyTorch's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses import SegmentationLoss, weighted_cross_entropy
from pipeline.model_config import LossConfig


def test_weighted_cross_entropy_by_hand():
    """Two pixels of probability 1/2 and 1/4 for the true class, weights 1 and 3."""
    logits = torch.log(torch.tensor([[0.5, 0.75], [0.5, 0.25]]))[None, :, None]  # (1, 2, 1, 2)
    target, weights = torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 3.0]]])
    expected = (1 * math.log(2) + 3 * math.log(4)) / 4
    assert weighted_cross_entropy(logits, target, weights).item() == pytest.approx(expected, rel=1e-6)


def test_class_weights_as_a_map_are_pytorchs_class_weights():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 7), torch.randint(3, (2, 5, 7))
    class_weight = torch.tensor([0.2, 1.0, 3.0])
    ours = weighted_cross_entropy(logits, target, class_weight[target])
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, weight=class_weight))


def test_dice_by_hand():
    """Probabilities 1 and 1/2 for the first class on two pixels of it: Dice 2 * 1.5 / 3.5 and 0 / (0.5 + 0)."""
    logits = torch.tensor([[[[50.0, 0.0]], [[-50.0, 0.0]]]])
    target, weights = torch.zeros(1, 1, 2, dtype=torch.int64), torch.ones(1, 1, 2)
    loss = SegmentationLoss(LossConfig(cross_entropy=0, dice=1))(logits, target, weights)
    assert loss.item() == pytest.approx(1 - (3 / 3.5 + 0) / 2, abs=1e-4)


def test_the_parts_are_added_with_their_weights():
    torch.manual_seed(0)
    logits, target, weights = torch.randn(2, 2, 8, 8), torch.randint(2, (2, 8, 8)), torch.rand(2, 8, 8)
    both, cross_entropy, dice = (
        SegmentationLoss(LossConfig(cross_entropy=a, dice=b))(logits, target, weights)
        for a, b in ((0.3, 2.0), (1.0, 0.0), (0.0, 1.0))
    )
    torch.testing.assert_close(both, 0.3 * cross_entropy + 2.0 * dice)


def test_a_perfect_prediction_costs_nothing():
    target = torch.randint(2, (1, 16, 16))
    logits = 100.0 * F.one_hot(target, 2).permute(0, 3, 1, 2)
    assert SegmentationLoss(LossConfig())(logits, target, torch.ones(1, 16, 16)).item() == pytest.approx(0, abs=1e-3)
