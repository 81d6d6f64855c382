"""The context of small networks whose answer is known; no activation, gate or weight hides it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models.base.context import measure_context_px
from models.base.geometry import Geometry


def convolution(kernel=3, stride=1, **more):
    """A convolution to one channel that keeps the size, or divides it by the stride."""
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    dilation = more.get("dilation", 1)
    return nn.Conv2d(1, 1, sides, stride, padding=[dilation * (side // 2) for side in sides], **more)


def scaled(layer, weight, bias=0.0):
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, bias)
    return layer


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, image):
        return self.function(image)


class Position(nn.Module):
    """Adds a learned value to each row and column, as a transformer does."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, 1, 1, 5000))

    def forward(self, image):
        return image + self.embedding[..., : image.shape[-1]]


def means_of_windows(image, side=3):
    """Replace each pixel by the mean of its window of three columns, counted from the left end of the image."""
    columns = image.shape[-1]
    padded = F.pad(image, (0, -columns % side))
    means = padded.unflatten(-1, (-1, side)).mean(-1, keepdim=True).expand(-1, -1, -1, -1, side)
    return means.flatten(-2)[..., :columns]


ACTIVATIONS = [
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.Mish),
    *(nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.PReLU, nn.Softplus, nn.Softsign, nn.Hardshrink, nn.Softshrink),
]


@pytest.mark.parametrize(("weight", "bias"), [(1.0, 0.0), (1e3, 1e3), (-1e3, -1e3), (0.0, 0.0)])
def test_saturated_and_dead_activations_hide_nothing(weight, bias):
    layers = [layer for activation in ACTIVATIONS for layer in (scaled(convolution(), weight, bias), activation())]
    network = nn.Sequential(*layers, convolution(kernel=1))
    assert measure_context_px(network, Geometry(stride_px=1, context_px=None)) == len(ACTIVATIONS)


LOCAL = [
    ("one pixel", lambda: convolution(1), 1, 0),
    ("rows only", lambda: nn.Sequential(convolution((7, 3)), convolution((1, 3))), 1, 3),
    ("columns only", lambda: nn.Sequential(convolution((3, 7)), convolution((3, 1))), 1, 3),
    ("only one side", lambda: nn.Sequential(nn.ZeroPad2d((3, 0, 3, 0)), nn.Conv2d(1, 1, 4)), 1, 3),
    (
        "dilated, with holes",
        lambda: nn.Sequential(convolution(dilation=37), nn.ReLU6(), convolution(dilation=5)),
        1,
        42,
    ),
    ("pooled", lambda: nn.Sequential(nn.MaxPool2d(4), convolution(), nn.Upsample(scale_factor=4)), 4, 4),
    ("every fourth pixel", lambda: nn.Sequential(nn.Conv2d(1, 1, 1, 4), nn.Upsample(scale_factor=4)), 4, 0),
    ("bilinear", lambda: nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")), 2, 2),
    ("no bias, dead at first", lambda: nn.Sequential(*[convolution(bias=False), nn.ReLU()] * 9, convolution(1)), 1, 9),
]


@pytest.mark.parametrize(("build", "stride_px", "expected"), [case[1:] for case in LOCAL], ids=[c[0] for c in LOCAL])
def test_contexts_by_hand(build, stride_px, expected):
    assert measure_context_px(build(), Geometry(stride_px=stride_px, context_px=None)) == expected


GLOBAL = [
    ("average of the image", lambda: Apply(lambda image: image + image.mean(dim=(2, 3), keepdim=True))),
    ("gate that is always open", lambda: Apply(lambda image: image * F.hardsigmoid(9 + image.amax((2, 3), True)))),
    (
        "attention",
        lambda: Apply(lambda image: (image.mT @ image).softmax(dim=-1) @ image.mT @ torch.ones(1, 1) + image),
    ),
    ("group normalization", lambda: nn.GroupNorm(1, 1)),
    ("position", Position),
    ("windows of three columns", lambda: Apply(means_of_windows)),
    ("windows of three rows", lambda: Apply(lambda image: means_of_windows(image.mT).mT)),
    ("NaN has no effect", lambda: nn.Sequential(Apply(torch.nan_to_num), convolution())),
    ("a constant", lambda: Apply(torch.ones_like)),
]


@pytest.mark.parametrize("build", [case[1] for case in GLOBAL], ids=[case[0] for case in GLOBAL])
def test_what_is_not_the_same_in_every_window_is_global(build):
    network = nn.Sequential(convolution(), build(), convolution())
    assert measure_context_px(network, Geometry(stride_px=1, context_px=None)) is None


@pytest.mark.parametrize("align_corners", [True, False])
def test_aligned_corners_depend_on_the_size_of_the_window(align_corners):
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners)
    network = nn.Sequential(convolution(), nn.MaxPool2d(2), nn.ReLU6(), up, convolution())
    expected = None if align_corners else 3
    assert measure_context_px(network, Geometry(stride_px=2, context_px=None)) == expected


def test_measuring_leaves_the_random_numbers_of_others_alone():
    network = models.build("unet", in_channels=1, num_classes=2, options={"width": 2})
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert network.geometry.context_px == 94
    assert torch.equal(torch.rand(3), expected)
