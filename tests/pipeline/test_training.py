"""Training learns, keeps its best weights, repeats itself from a seed, and ends when it should."""

import math

import numpy as np
import pytest
import torch

import models
from models.geometry import Geometry
from pipeline.augmentation import augmentation
from pipeline.errors import SlidemillError
from pipeline.inference import predict_image
from pipeline.metrics.overlap import confusion, per_class
from pipeline.model_config import AugmentationConfig, ModelConfig
from pipeline.patches import Annotated, RandomPatches
from pipeline.training import check_patch, parameter_groups, schedule, train_network

STILL = AugmentationConfig(
    flip=False, rotate_deg=0, scale=0, elastic_px=0, brightness=0, contrast=0, gamma=0, noise=0, blur_px=0
)
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


def patches(config, *, seed=0, count=6, patch_px=64, images=None):
    stream = iter(RandomPatches(images or [squares(1), squares(2)], patch_px=patch_px, config=config, seed=seed))
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("config", [STILL, AugmentationConfig()])
def test_patches_have_the_types_that_the_loss_takes(config):
    for image, target, weights in patches(config):
        assert (image.shape, image.dtype) == ((1, 64, 64), torch.float32)
        assert (target.shape, target.dtype) == ((64, 64), torch.int64)
        assert weights.shape == (64, 64)
        assert set(target.unique().tolist()) <= {0, 1}
        assert type(image) is type(target) is type(weights) is torch.Tensor


def test_patches_follow_from_the_seed():
    first, again, other = (patches(AugmentationConfig(), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_labels_and_weights_move_with_the_image():
    """An image whose intensity is its label: wherever pixels go, the three still agree."""
    config = STILL.model_copy(update={"flip": True, "rotate_deg": 30.0, "scale": 0.3, "elastic_px": 5.0})
    plain = squares(1)
    same = Annotated(
        name="",
        image=plain.classes[None].astype(np.float32),
        classes=plain.classes,
        weights=plain.classes.astype(np.float16),
    )
    for image, target, weights in patches(config, count=20, images=[same]):
        # Labels take the nearest pixel, which has at least a quarter of the weight in bilinear interpolation.
        assert image[0][target == 1].min() >= 0.25 - 1e-5
        assert image[0][target == 0].max() <= 0.75 + 1e-5
        torch.testing.assert_close(image[0], weights)


def test_an_image_smaller_than_a_patch_is_mirrored():
    tiny = Annotated(
        name="",
        image=np.arange(12, dtype=np.float32).reshape(1, 3, 4),
        classes=np.zeros((3, 4), np.uint8),
        weights=np.ones((3, 4), np.float16),
    )
    image, *_ = patches(STILL, images=[tiny], patch_px=16, count=1)[0]
    expected = np.pad(tiny.image[0], [(7, 6), (6, 6)], mode="reflect")
    np.testing.assert_array_equal(image[0].numpy(), expected)


def test_every_change_can_be_turned_off():
    patch = {name: torch.rand(1, 32, 32) for name in ("image", "labels", "weights")}
    for _ in range(5):
        for name, part in augmentation(STILL)(patch).items():
            assert torch.equal(part, patch[name])


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
