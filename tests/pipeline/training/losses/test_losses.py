"""Losses by their definition and by hand; unknown pixels have no effect."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import segmentation_models_pytorch.losses as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.settings.networks import LossConfig, LossWeights
from pipeline.slides.labels import IGNORED
from pipeline.training import losses
from pipeline.training.losses import SegmentationLoss
from pipeline.training.losses.centrelines import cl_dice
from pipeline.training.losses.lovasz import lovasz_softmax
from pipeline.training.losses.overlap import dice, generalized_dice, jaccard, tversky
from pipeline.training.losses.pixels import cross_entropy, focal

PIXELWISE = {"cross_entropy", "focal"}
EVERY = pytest.mark.parametrize("name", losses.available())
seeds = st.integers(0, 2**32 - 1)


def batch(seed=0, *, classes=3, shape=(2, 6, 7), dtype=torch.float32):
    """Return random logits, targets and weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=dtype)
    target = torch.randint(classes, shape, generator=generator)
    return logits, target, torch.rand(shape, generator=generator, dtype=dtype) + 0.1


def certain(predicted):
    """Return logits of probabilities 0 and 1 for two classes."""
    return 200.0 * F.one_hot(predicted, 2).movedim(-1, 1)


def only(name, **others):
    """Return the configuration in which one loss has a weight."""
    return LossConfig(**dict.fromkeys(LossWeights.model_fields, 0.0) | {name: 1.0}, **others)


@EVERY
class TestEveryLoss:
    @settings(deadline=None, max_examples=20)
    @given(
        seed=seeds,
        classes=st.integers(2, 4),
        share=st.floats(0, 1),
        rubbish=st.sampled_from([1e4, math.nan, -math.inf]),
    )
    def test_ignored_pixels_change_neither_value_nor_gradient(self, name, seed, classes, share, rubbish):
        logits, target, weights = batch(seed, classes=classes)
        ignored = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) < share
        target[ignored] = IGNORED
        other = torch.where(ignored[:, None], rubbish, logits)
        heavy = torch.where(ignored, 1e3, weights)
        results = []
        for one, weight in ((logits, weights), (other, heavy)):
            one.requires_grad_()
            value = losses.find(name)(one, target, weight)
            value.backward()
            results.append((value.detach(), one.grad))
            assert (one.grad.movedim(1, -1)[ignored] == 0).all()
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])

    def test_the_loss_of_a_batch_of_ignored_pixels_is_zero(self, name):
        logits, target, weights = batch()
        logits.requires_grad_()
        value = losses.find(name)(logits, torch.full_like(target, IGNORED), weights)
        value.backward()
        assert value.item() == 0
        assert (logits.grad == 0).all()

    def test_any_value_can_mean_ignored(self, name):
        logits, target, weights = batch()
        unknown = torch.zeros_like(target, dtype=torch.bool)
        unknown[:, 2:4] = True
        loss = losses.find(name)
        one = loss(logits, target.masked_fill(unknown, IGNORED), weights)
        torch.testing.assert_close(loss(logits, target.masked_fill(unknown, -1), weights, ignore_index=-1), one)
        assert one != loss(logits, target, weights)

    def test_its_gradient_is_that_of_its_value(self, name):
        """Against differences, in float64; a soft centreline has kinks, but hardly at random places."""
        logits, target, weights = batch(3, shape=(1, 4, 5), dtype=torch.float64)
        target[0, 1, 2] = IGNORED
        assert torch.autograd.gradcheck(lambda one: losses.find(name)(one, target, weights), logits.requires_grad_())

    def test_it_falls_from_wrong_to_right(self, name):
        _, target, weights = batch(classes=2, shape=(2, 16, 16))
        right = F.one_hot(target, 2).movedim(-1, 1) - 0.5
        values = [losses.find(name)(sharpness * right, target, weights).item() for sharpness in (-50, -1, 0, 1, 50)]
        assert values == sorted(values, reverse=True)
        assert values[-1] == pytest.approx(0, abs=1e-3)

    def test_it_descends_to_the_target(self, name):
        logits, target, weights = batch(classes=2, shape=(1, 8, 8))
        target[:] = 0
        target[:, 3:5] = 1  # a line, for losses of centrelines
        start = losses.find(name)(logits, target, weights).item()
        logits.requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.2)
        for _ in range(60):
            optimizer.zero_grad()
            value = losses.find(name)(logits, target, weights)
            value.backward()
            optimizer.step()
        assert value.item() < 0.2 * start

    def test_it_is_computed_in_float32(self, name):
        logits, target, weights = batch()
        exact = losses.find(name)(logits.bfloat16().float(), target, weights)
        value = losses.find(name)(logits.bfloat16(), target, weights)
        assert value.dtype == torch.float32
        assert value.shape == ()
        torch.testing.assert_close(value, exact, rtol=1e-3, atol=1e-3)

    def test_weights_are_those_of_pixels_or_ignored(self, name):
        logits, target, weights = batch()
        loss = losses.find(name)
        torch.testing.assert_close(loss(logits, target), loss(logits, target, 3 * torch.ones_like(weights)))
        assert (loss(logits, target, weights) == loss(logits, target)) == (name not in PIXELWISE)

    def test_it_does_not_depend_on_the_order_of_the_images(self, name):
        logits, target, weights = batch()
        one, other = (
            losses.find(name)(*(part[order] for part in (logits, target, weights))) for order in ([0, 1], [1, 0])
        )
        torch.testing.assert_close(one, other)

    def test_the_configuration_gives_it_a_weight(self, name):
        logits, target, weights = batch()
        value = SegmentationLoss(only(name))(logits, target, weights)
        torch.testing.assert_close(value, losses.find(name)(logits, target, weights))


def test_table_and_configuration_name_the_same_losses():
    assert set(losses.available()) == set(LossWeights.model_fields)


def test_an_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="unknown loss 'hinge'; available: cl_dice, cross_entropy, dice"):
        losses.find("hinge")


def test_the_default_is_cross_entropy_plus_dice():
    logits, target, weights = batch()
    expected = cross_entropy(logits, target, weights) + dice(logits, target)
    torch.testing.assert_close(SegmentationLoss(LossConfig())(logits, target, weights), expected)


def test_the_parts_are_added_with_their_weights():
    logits, target, weights = batch()
    both = SegmentationLoss(LossConfig(cross_entropy=0.3, dice=0, tversky=2.0))(logits, target, weights)
    expected = 0.3 * cross_entropy(logits, target, weights) + 2.0 * tversky(logits, target)
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (only("focal", focal_gamma=1.0), lambda *given: focal(*given, gamma=1.0)),
        (only("tversky", tversky_alpha=0.6, tversky_beta=0.2), lambda *given: tversky(*given, alpha=0.6, beta=0.2)),
        (only("cl_dice", cl_dice_iterations=1), lambda *given: cl_dice(*given, iterations=1)),
    ],
)
def test_the_configuration_sets_the_parameters(config, expected):
    given = batch(shape=(2, 12, 12))
    torch.testing.assert_close(SegmentationLoss(config)(*given), expected(*given))
    names = [name for name in losses.available() if getattr(config, name)]
    assert SegmentationLoss(config)(*given) != SegmentationLoss(only(*names))(*given)


HALF = torch.log(torch.tensor([[0.5, 0.75], [0.5, 0.25]]))[None, :, None]  # two pixels of two classes, (1, 2, 1, 2)


@pytest.mark.parametrize(("loss", "factors"), [(cross_entropy, (1, 1)), (focal, (1 / 4, 9 / 16))])
def test_means_over_pixels_by_hand(loss, factors):
    """Two pixels of probability 1/2 and 1/4 for the true class, weights 1 and 3; focal times (1 - p)^2."""
    expected = (1 * factors[0] * math.log(2) + 3 * factors[1] * math.log(4)) / 4
    value = loss(HALF, torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 3.0]]]))
    assert value.item() == pytest.approx(expected, rel=1e-6)


SHARES = torch.tensor([[[[50.0, 0.0]], [[-50.0, 0.0]]]])  # probabilities (1, 0) and (1/2, 1/2)
FIRST = torch.zeros(1, 1, 2, dtype=torch.int64)
ONE_OF_EACH = torch.tensor([[[0, 1]]])


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        (dice, FIRST, 1 - (2 * 1.5 / 3.5 + 0) / 2),
        (dice, ONE_OF_EACH, 1 - (2 * 1 / 2.5 + 2 * 0.5 / 1.5) / 2),
        (jaccard, ONE_OF_EACH, 1 - (1 / 1.5 + 0.5 / 1) / 2),
        (tversky, ONE_OF_EACH, 1 - (1 / (1 + 0.3 * 0.5) + 0.5 / (0.5 + 0.7 * 0.5)) / 2),
        (generalized_dice, ONE_OF_EACH, 1 - 2 * 1.5 / 4),  # both classes have one pixel, so both have v = 1
        (generalized_dice, FIRST, 1 - 2 * 1.5 / 4),  # v = 1/4, and as much for the class that is absent
        (lovasz_softmax, ONE_OF_EACH, (0.5 * 0.5 + 0.5 * 1) / 2),  # one error of 1/2: of J = 1/2, and of J = 0
    ],
)
def test_overlaps_by_hand(loss, target, expected):
    assert loss(SHARES, target).item() == pytest.approx(expected, abs=1e-4)


def test_cl_dice_by_hand():
    """In one row, where the centreline of a run is its middle, or its pixel at the border of the image.

    Class 1: centrelines {7} of pixels 4-7 and {3, 4} of the true 2-5: P = (0 + 1) / (1 + 1), S = (1 + 1) / (2 + 1).
    Class 0: {0} of 0-3 and {0, 7} of the true 0, 1, 6, 7: P = (1 + 1) / (1 + 1), S = (1 + 1) / (2 + 1).
    """
    predicted, target = torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 1, 1, 0, 0]]])
    expected = ((1 - 4 / 7) + (1 - 4 / 5)) / 2
    assert cl_dice(certain(predicted), target).item() == pytest.approx(expected, abs=1e-6)


def test_class_weights_as_a_map_are_pytorchs_class_weights():
    logits, target, _ = batch()
    class_weight = torch.tensor([0.2, 1.0, 3.0])
    ours = cross_entropy(logits, target, class_weight[target])
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, weight=class_weight))


@settings(deadline=None, max_examples=20)
@given(seed=seeds, classes=st.integers(2, 4))
def test_overlap_losses_equal_those_of_another_library(seed, classes):
    """segmentation_models_pytorch without smoothing; every class is in the batch."""
    logits, target, _ = batch(seed, classes=classes, shape=(2, 16, 16))
    target[0, 0, :classes] = torch.arange(classes)
    pairs = [
        (dice, smp.DiceLoss("multiclass")),
        (jaccard, smp.JaccardLoss("multiclass")),
        (tversky, smp.TverskyLoss("multiclass", alpha=0.3, beta=0.7)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours(logits, target), theirs(logits, target), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, classes=st.integers(2, 4), missing=st.booleans())
def test_lovasz_equals_that_of_another_library(seed, classes, missing):
    logits, target, _ = batch(seed, classes=classes)
    if missing:
        target[target == classes - 1] = 0
    target[0, 0] = IGNORED
    theirs = smp.LovaszLoss("multiclass", ignore_index=IGNORED)(logits.softmax(1).log(), target)
    torch.testing.assert_close(lovasz_softmax(logits, target), theirs, rtol=1e-4, atol=1e-5)


def test_tversky_of_halves_is_dice():
    logits, target, _ = batch()
    torch.testing.assert_close(tversky(logits, target, alpha=0.5, beta=0.5), dice(logits, target))


def test_generalized_dice_is_its_formula_on_large_batches_too():
    """MONAI's smoothing would be half of the value here."""
    logits, target, _ = batch(shape=(2, 256, 256))
    p, t = logits.double().softmax(1), F.one_hot(target, 3).movedim(-1, 1).double()
    v = 1 / t.sum(dim=(0, 2, 3)) ** 2
    overlap, total = ((v * part.sum(dim=(0, 2, 3))).sum() for part in (p * t, p + t))
    assert generalized_dice(logits, target).item() == pytest.approx((1 - 2 * overlap / total).item(), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_lovasz_is_the_extension_of_the_jaccard_loss(seed):
    """By its definition: the largest value, over all orders of the pixels, of errors times the growth of the loss."""
    logits, target, _ = batch(seed, classes=2, shape=(1, 2, 3), dtype=torch.float64)
    probabilities, truth = logits.softmax(1)[0].flatten(1).numpy(), target.flatten().numpy()
    values = [_extension(np.abs((truth == c) - probabilities[c]), truth == c) for c in (0, 1) if (truth == c).any()]
    assert lovasz_softmax(logits, target).item() == pytest.approx(np.mean(values), rel=1e-9)


def _extension(errors, truth):
    """Return the integral over thresholds in [0, 1] of the Jaccard loss of the pixels whose error is above it."""
    steps = np.sort(np.concatenate([[0.0], errors]))
    return sum(
        (high - low) * (1 - (truth & ~(errors > low)).sum() / (truth | (errors > low)).sum())
        for low, high in pairwise(steps)
    )


def test_lovasz_of_certain_predictions_is_the_jaccard_loss():
    for wrong in (set(pixels) for count in range(5) for pixels in combinations(range(4), count)):
        truth = torch.tensor([[[0, 0, 1, 1]]])
        predicted = torch.tensor([[[1 - c if i in wrong else c for i, c in enumerate(truth.flatten().tolist())]]])
        expected = np.mean(
            [1 - ((predicted == c) & (truth == c)).sum() / ((predicted == c) | (truth == c)).sum() for c in (0, 1)]
        )
        assert lovasz_softmax(certain(predicted), truth).item() == pytest.approx(expected, abs=1e-6)


def test_cl_dice_is_more_sensitive_to_a_gap_than_dice():
    target = torch.zeros(1, 32, 32, dtype=torch.int64)
    target[0, 14:18] = 1
    broken, thinner = target.clone(), target.clone()
    broken[0, 14:18, 15:17] = 0  # 8 pixels less, and the line is cut
    thinner[0, 14, :8] = 0  # 8 pixels less, and it is whole
    values = [[loss(certain(one), target).item() for one in (broken, thinner)] for loss in (dice, cl_dice)]
    assert values[0][0] == pytest.approx(values[0][1], rel=1e-3)
    assert values[1][0] > 1.5 * values[1][1]
