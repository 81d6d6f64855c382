"""Training learns, keeps the weights of its end, is repeatable, and ends as configured."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import models
from models.base.geometry import Geometry
from pipeline.base.arrays import LazyArray
from pipeline.base.errors import SlidemillError
from pipeline.metrics.overlap import confusion, per_class
from pipeline.prediction.forward import predict_image
from pipeline.settings.networks import ModelConfig, OptimizerConfig, ResolvedConfig
from pipeline.training import loop, losses
from pipeline.training.loop import Clock, validate, validation_interval
from pipeline.training.optimization import (
    average_of,
    build_optimizer,
    drop_frozen_gradients,
    parameter_groups,
    schedule,
)
from pipeline.training.processes import SharedBatchNorm, share_batch_norm
from pipeline.training.step import check_patch
from tests.support.networks import network_with_batch_stats
from tests.support.training import CPU, on_disk, squares, train_in


@pytest.fixture
def train(tmp_path):
    """Train on squares in a folder of its own; what it returns is the network, its record and the history."""
    folders = (tmp_path / str(number) for number in itertools.count())
    return lambda **settings: train_in(next(folders), **settings)


@pytest.mark.parametrize("options", [{"width": 4, "depth": 2}, {"width": 4, "depth": 2, "padding": "valid"}])
@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.slow
def test_training_learns_and_keeps_its_last_weights(train, options, average):
    network, last, history = train(options=options, optimizer=OptimizerConfig(average=average), precision="float32")
    assert list(history["step"]) == [30, 60]
    assert last["foreground_dice"] == history["foreground_dice"].iloc[-1] == last["dice_square"]
    assert last["dice_square"] > 0.9
    image = squares(3)
    counts = confusion(image.classes, predict_image(network, image.image, num_classes=2, tile_px=512), num_classes=2)
    assert per_class("dice", counts).tolist() == pytest.approx([last["dice_background"], last["dice_square"]])
    assert not network.training


def test_images_on_disk_train_like_images_in_memory(train):
    settings = {"max_steps": 2, "validate_every": 1}
    in_memory, lazy = (train(source=source, **settings)[2] for source in (lambda annotated: annotated, on_disk))
    columns = ["step", "loss", "dice_background", "dice_square", "dice_mean"]
    pd.testing.assert_frame_equal(in_memory[columns], lazy[columns])


@pytest.mark.parametrize(("name", "options"), [("unet", {"depth": 1}), ("pspnet", {})])
def test_validation_reads_tiles_and_counts_what_the_whole_images_have(monkeypatch, name, options):
    """No more pixels are read at once of an image that is higher."""
    monkeypatch.setattr(loop, "_VALIDATION_TILE_PX", 64)
    network = network_with_batch_stats(name, num_classes=2, width=2, **options)
    largest = []
    for rows in (192, 256):
        annotated, read = squares(1, side=rows), []
        annotated = dataclasses.replace(annotated, image=annotated.image[..., :60], classes=annotated.classes[:, :60])

        def crop(*key, array=annotated.image, read=read):
            read.append(math.prod(part.stop - part.start for part in key[1:]))
            return array[key]

        lazy = on_disk(dataclasses.replace(annotated, image=LazyArray(annotated.image.shape, np.float32, crop)))
        row, picture = validate(network, [lazy], ["background", "square"])
        whole = predict_image(network, annotated.image, num_classes=2, tile_px=64)
        counts = confusion(annotated.classes, whole, num_classes=2)
        assert row["dice_square"] == per_class("dice", counts)[1]
        assert max(picture.shape) <= 64
        largest.append(max(read))
    assert largest[0] == largest[1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(train):
    """Steps end the training, not time."""
    (first, *_), (second, *_) = train(max_steps=8), train(max_steps=8)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"width": 4, "depth": 1}, {"width": 4, "depth": 3, "deep_supervision": True}])
def test_a_head_learns_beside_the_classes(train, options):
    """Here the head `boundary` learns the weight map, which is 1 everywhere."""
    network, best, history = train(
        max_steps=12, validate_every=6, heads={"boundary": True, "distance": False}, options=options
    )
    assert list(history["loss_boundary"] < history["loss"]) == [True, True]
    assert history["loss_boundary"].is_monotonic_decreasing
    assert best["loss_boundary"] in history["loss_boundary"].to_list()
    assert (network.heads, network.num_classes) == (("boundary",), 2)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
@pytest.mark.slow
def test_networks_compute_in_the_precision_of_the_training(tmp_path, monkeypatch, precision, dtype):
    """Steps and validations do; weights and loss are always float32."""
    computed, lost = set(), set()
    forward, loss_of = torch.nn.Conv2d.forward, losses.SegmentationLoss.forward

    def convolve(self, image):
        logits = forward(self, image)
        if torch.is_grad_enabled() or computed:  # before the first step, the context of the network is measured
            computed.add((torch.is_grad_enabled(), logits.dtype))
        return logits

    def lose(self, *parts):
        loss = loss_of(self, *parts)
        lost.add(loss.dtype)
        return loss

    monkeypatch.setattr(torch.nn.Conv2d, "forward", convolve)
    monkeypatch.setattr(losses.SegmentationLoss, "forward", lose)
    network, *_ = train_in(tmp_path, max_steps=1, validate_every=1, precision=precision)
    assert computed == {(True, dtype), (False, dtype)}
    assert lost == {torch.float32}
    assert {value.dtype for value in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_updates_do_not_depend_on_the_memory_order(kind):
    """The fused optimizer works on memory, not on elements."""
    moved = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        network = models.build("unet", in_channels=3, num_classes=2, options={"width": 2, "depth": 1})
        network.to(memory_format=memory_format)
        optimizer = build_optimizer(network, ModelConfig(optimizer=OptimizerConfig(kind=kind)))
        for step in range(3):
            torch.manual_seed(step)
            for parameter in network.parameters():
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
            optimizer.param_groups[0]["lr"] = 0.1
            optimizer.step()
        moved.append(network.state_dict())
    for name, value in moved[0].items():
        torch.testing.assert_close(moved[1][name], value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_time_ends_a_training(train):
    _, _, history = train(max_steps=10**6, max_minutes=0.02)
    assert history["step"].iloc[-1] < 10**4


@pytest.mark.parametrize(
    ("every", "minutes", "validation_s", "ends"),
    [
        (4, 0.1, 4, [8]),  # no further step, and no second validation
        (8, 1, 5, [13, 26, 39, 52, 60]),  # after 55 s there is time for one more
        (8, 1, 9, [17, 34, 51]),  # there is none
        (40, 1, 30, [70]),  # the first one takes longer than what is left
    ],
)
def test_the_last_validation_is_within_the_time_of_a_training(train, monkeypatch, every, minutes, validation_s, ends):
    """Every step takes a second."""
    now, validated = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def step(*_, **__):
        now[0] += 1
        return {"loss": 0.5}

    def long_validation(*_):
        now[0] += validation_s
        validated.append(now[0])
        return {"foreground_dice": 0.5}, np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(loop.Learner, "step", step)
    monkeypatch.setattr(loop, "validate", long_validation)
    train(max_steps=100, validate_every=every, max_minutes=minutes)
    assert validated == ends


def test_memory_that_runs_out_is_an_error_of_one_line(train, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop.Learner, "step", fail)
    with pytest.raises(SlidemillError, match="2 patches of 64 px does not fit into the memory of cpu; lower"):
        train()


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_every_step_learns(train, monkeypatch, steps):
    rates = []
    monkeypatch.setattr(loop.Learner, "step", lambda *_, rate, **__: rates.append(rate) or {"loss": 0.5})
    monkeypatch.setattr(loop, "validate", lambda *_: ({"foreground_dice": 0.5}, np.zeros((1, 1, 3), np.uint8)))
    train(max_steps=steps, learning_rate=1.0)
    assert len(rates) == steps
    assert min(rates) > 0.1 / steps**2
    assert max(rates) >= 0.5


@pytest.mark.slow
def test_patience_ends_a_training(train):
    """With a learning rate of almost 0, no validation is better than the first, whose network is kept."""
    options = {"width": 2, "depth": 1, "normalization": "none"}
    _, kept, history = train(max_steps=10**4, validate_every=4, patience=3, learning_rate=1e-30, options=options)
    assert list(history["step"]) == [4, 8, 12, 16]
    assert kept["step"] == 4


def test_an_infinite_loss_is_an_error_and_the_batch_is_kept(tmp_path):
    with pytest.raises(SlidemillError, match="the loss is .* at step .*; the batch is in .*; lower learning_rate"):
        train_in(tmp_path, learning_rate=1e30)
    shapes = {"image": (2, 1, 64, 64), "target": (2, 64, 64), "maps": (2, 1, 64, 64)}
    with np.load(tmp_path / "training" / "failed-batch.npz") as batch:
        assert {name: part.shape for name, part in batch.items()} == shapes
    assert not (tmp_path / "history.csv").exists()


@pytest.mark.parametrize(("kind", "half"), [("cosine", 0.5), ("poly", 0.5**0.9), ("constant", 1.0)])
def test_the_learning_rate_rises_then_falls_as_configured(kind, half):
    config = OptimizerConfig(schedule=kind, warm_up=0.1)
    rates = [schedule(fraction, config) for fraction in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 10
    assert rates[50] == pytest.approx(half)
    assert rates[-1] == pytest.approx(1.0 if kind == "constant" else 0)


@pytest.mark.parametrize(("every", "pixels", "steps"), [(50, 10_000, 50), (1, 10_000, 1), (50, 10**6, 367)])
def test_validation_takes_at_most_a_tenth_of_the_computation(every, pixels, steps):
    """By hand: a step computes 3 times 8192 px, validation 10^6; 9 times 10^6 are 366.2 times 24576."""
    config = ResolvedConfig(patch_px=64, batch_size=2, validate_every=every)
    assert validation_interval(config, pixels) == (steps if pixels > 10_000 else max(every, 4))


def test_progress_follows_from_steps_and_time():
    clock = Clock(max_steps=100, max_seconds=100, earlier_s=75)
    assert clock.fraction(10) == 0.75
    assert clock.fraction(80) == 0.8
    assert 75 <= clock.elapsed_s() < 100
    assert Clock(max_steps=100, max_seconds=math.inf, earlier_s=1e9).fraction(80) == 0.8


@pytest.mark.parametrize(
    ("patch_px", "message"),
    [(100, "a multiple of the network's stride of 16, got 100"), (192, "at least 200 .* got 192")],
)
def test_a_patch_that_does_not_fit_the_network_is_an_error(patch_px, message):
    with pytest.raises(SlidemillError, match=message):
        check_patch(Geometry(stride_px=16, context_px=94, margin_px=92, remainder_px=12), patch_px)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": CPU * 3}, "batch_size 2 cannot be shared among 3 devices"),
        ({"architecture": "pspnet", "options": {"width": 1}, "batch_size": 1}, "must be at least 2 for pspnet"),
    ],
)
def test_a_batch_of_a_wrong_size_is_an_error(train, settings, message):
    with pytest.raises(SlidemillError, match=message):
        train(**settings)


def test_the_first_loss_is_that_of_chance(train):
    _, _, history = train(max_steps=1, validate_every=1, loss={"cross_entropy": 1, "dice": 0})
    assert history["loss"][0] == pytest.approx(math.log(2), rel=0.8)


@pytest.mark.parametrize(
    ("settings", "groups", "is_frozen"),
    [
        ({}, [(1.0, 0)], False),
        ({"encoder_rate": 0.1}, [(1.0, 0), (0.1, 0)], False),
        ({"encoder_rate": 0.0}, [(1.0, 0)], True),
        ({"frozen_steps": 4}, [(1.0, 0), (1.0, 4)], True),
        ({"frozen_steps": 3}, [(1.0, 0), (1.0, 3)], False),
    ],
)
def test_the_encoder_has_its_own_rate_and_start(tmp_path, settings, groups, is_frozen):
    """A frozen encoder keeps its weights and statistics; a slow one changes."""
    torch.manual_seed(0)
    network = models.build("unet", in_channels=1, num_classes=2, options={"width": 4, "depth": 2})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = parameter_groups(network, ModelConfig(**settings))
    assert [(group["relative_rate"], group["first_step"]) for group in made] == groups
    trained, _, _ = train_in(tmp_path, max_steps=4, validate_every=4, **settings)
    same = {name: torch.equal(value, before[name]) for name, value in trained.state_dict().items()}
    assert all(same[name] for name in same if name.startswith("encoder.")) == is_frozen
    assert not same["head.weight"]


def test_the_average_follows_its_formula():
    network = torch.nn.Linear(1, 1, bias=False)
    network.register_buffer("counter", torch.tensor(0))
    average = average_of(network, 0.5)
    expected = None
    for step, value in enumerate([1.0, 3.0, -2.0, 5.0]):
        network.weight.data.fill_(value)
        network.counter.fill_(step)
        average.update_parameters(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected)
        assert average.module.counter == step


def test_gradients_of_a_frozen_encoder_are_not_clipped():
    """The step of the head is that of a network whose encoder has no gradient."""
    network = models.build("unet", in_channels=1, num_classes=2, options={"width": 2, "depth": 1})
    optimizer = build_optimizer(network, ModelConfig(frozen_steps=3))
    for step in (2, 3):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 1e6)
        drop_frozen_gradients(optimizer, step)
        assert all((parameter.grad is None) == (step < 3) for parameter in network.encoder.parameters())
        assert network.head.weight.grad is not None


def test_a_batch_normalization_that_cannot_be_shared_is_an_error():
    class WithActivation(torch.nn.BatchNorm2d):
        """As in timm."""

    shared = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    share_batch_norm(shared)
    share_batch_norm(shared)
    assert type(shared[0]) is SharedBatchNorm
    with pytest.raises(SlidemillError, match="of the class WithActivation cannot be computed over several processes"):
        share_batch_norm(torch.nn.Sequential(WithActivation(2)))
