"""Training learns, keeps its best weights, repeats itself from a seed, and ends when it should."""

import math

import numpy as np
import pytest
import torch

import models
from models.geometry import Geometry
from pipeline.annotated import Annotated
from pipeline.errors import SlidemillError
from pipeline.inference import predict_image
from pipeline.metrics.overlap import confusion, per_class
from pipeline.model_config import ModelConfig
from pipeline.training import check_patch, parameter_groups, schedule, train_network

CONFIG = {"patch_px": 64, "batch_size": 2, "max_steps": 60, "validate_every": 30, "learning_rate": 0.01}


def squares(seed):
    """Bright squares on a dark ground, with noise."""
    generator = np.random.default_rng(seed)
    classes = np.zeros((96, 96), np.uint8)
    for top, left in generator.integers(0, 80, (6, 2)):
        classes[top : top + 14, left : left + 14] = 1
    image = (classes + generator.normal(0, 0.3, classes.shape)).astype(np.float32)
    return Annotated(name=str(seed), image=image[None], classes=classes, weights=np.ones(classes.shape, np.float16))


def train(**settings):
    torch.manual_seed(0)
    network = models.build(
        settings.get("architecture", "unet"),
        in_channels=1,
        num_classes=2,
        options=settings.pop("options", {"width": 4, "depth": 2}),
    )
    history = []
    best = train_network(
        network,
        training=[squares(1), squares(2)],
        validation=[squares(3)],
        classes=["background", "square"],
        config=ModelConfig(**CONFIG | settings),
        on_record=lambda records: history.append(list(records)),
    )
    return network, best, history


@pytest.mark.parametrize("options", [{"width": 4, "depth": 2}, {"width": 4, "depth": 2, "padding": "valid"}])
def test_it_learns_and_ends_with_its_best_weights(options):
    network, best, history = train(options=options)
    assert [len(records) for records in history] == [1, 2]
    assert best["dice_mean"] == max(record["dice_mean"] for record in history[-1])
    assert best["dice_square"] > 0.9
    image = squares(3)
    counts = confusion(image.classes, predict_image(network, image.image, num_classes=2, tile_px=512), num_classes=2)
    assert per_class("dice", counts).tolist() == pytest.approx([best["dice_background"], best["dice_square"]])
    assert not network.training


def test_a_seed_repeats_a_training():
    (first, *_), (second, *_) = train(max_steps=8), train(max_steps=8)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_time_ends_a_training():
    _, _, history = train(max_steps=10**6, max_minutes=0.02)
    assert history[-1][-1]["step"] < 10**4


def test_a_loss_that_is_no_number_is_one_line():
    with pytest.raises(SlidemillError, match="the loss is .* at step .*; lower learning_rate"):
        train(learning_rate=1e30)


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [schedule(fraction) for fraction in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates.index(max(rates)) == 5
    assert rates[-1] == pytest.approx(0)


@pytest.mark.parametrize(
    ("patch_px", "message"),
    [(100, "a multiple of the network's stride of 16, got 100"), (192, "at least 200 .* got 192")],
)
def test_a_patch_that_does_not_suit_the_network_is_refused(patch_px, message):
    with pytest.raises(SlidemillError, match=message):
        check_patch(Geometry(stride_px=16, context_px=94, margin_px=92, remainder_px=12), patch_px)


def test_one_patch_at_a_time_is_too_few_for_averages_of_an_image():
    with pytest.raises(SlidemillError, match="batch_size must be at least 2 for pspnet"):
        train(architecture="pspnet", options={"width": 1}, batch_size=1)


def test_the_first_loss_is_that_of_guessing():
    _, _, history = train(max_steps=1, validate_every=1, loss={"cross_entropy": 1, "dice": 0})
    assert history[0][0]["loss"] == pytest.approx(math.log(2), rel=0.8)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_the_encoder_learns_at_its_own_rate(rate):
    """Frozen, it keeps its weights and its statistics; slowed down, it still moves."""
    torch.manual_seed(0)
    network = models.build("unet", in_channels=1, num_classes=2, options={"width": 4, "depth": 2})
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    groups = parameter_groups(network, rate)
    assert [group["relative_rate"] for group in groups] == {0.0: [1.0], 0.1: [1.0, 0.1], 1.0: [1.0]}[rate]
    train_network(
        network,
        training=[squares(1)],
        validation=[squares(3)],
        classes=["background", "square"],
        config=ModelConfig(**CONFIG | {"max_steps": 4, "validate_every": 2, "encoder_rate": rate}),
        on_record=lambda _: None,
    )
    unchanged = all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
    assert unchanged == (rate == 0)
