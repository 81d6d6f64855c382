"""Convolution blocks with normalization, initial weights, and checks of options."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

Normalization = Literal["none", "batch", "instance", "group"]

_GROUPS = 8


def convolution(
    narrow: int,
    wide: int,
    *,
    kernel: int = 3,
    padding: int | None = None,
    dilation: int = 1,
    bias: bool = True,
    normalization: Normalization = "batch",
) -> list[nn.Module]:
    """Return a convolution, its normalization and a ReLU; the size is kept unless ``padding`` says otherwise."""
    if padding is None:
        padding = dilation * (kernel // 2)
    layer = nn.Conv2d(narrow, wide, kernel, padding=padding, dilation=dilation, bias=bias)
    return [layer, *normalized(wide, normalization), nn.ReLU(inplace=True)]


def double_convolution(
    narrow: int, wide: int, *, padding: int = 1, normalization: Normalization = "batch"
) -> nn.Sequential:
    """Return two 3x3 convolutions, each with its normalization and a ReLU."""
    more: dict[str, Any] = {"padding": padding, "normalization": normalization}
    return nn.Sequential(*convolution(narrow, wide, **more), *convolution(wide, wide, **more))


def transposed_convolution(
    wide: int, narrow: int, *, kernel: int = 3, stride: int = 1, bias: bool = True
) -> list[nn.Module]:
    """Return a transposed convolution that multiplies the resolution by ``stride``, batch normalization and a ReLU."""
    more: dict[str, Any] = {"padding": kernel // 2, "output_padding": stride - 1, "bias": bias}
    layer = nn.ConvTranspose2d(wide, narrow, kernel, stride, **more)
    return [layer, nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]


def normalized(channels: int, normalization: Normalization) -> list[nn.Module]:
    """Return the normalization of ``channels`` channels: a list of one module, or an empty one.

    Batch normalization has fixed statistics once trained. Instance and group normalization (Ulyanov 2016,
    arXiv:1607.08022; Wu 2018, arXiv:1803.08494) use the statistics of each image: its logits depend on all of it.
    """
    if normalization == "batch":
        return [nn.BatchNorm2d(channels)]
    if normalization == "instance":
        return [nn.GroupNorm(channels, channels)]
    if normalization == "group":
        return [nn.GroupNorm(_GROUPS if channels % _GROUPS == 0 else 1, channels)]
    return []


def initialize(module: nn.Module) -> None:
    """Draw the weights of a convolution with standard deviation sqrt(2 / fan-in) (He et al. 2015, arXiv:1502.01852).

    Weights without memory (device ``meta``) are left alone: for them PyTorch would load its compiler, which takes long.
    """
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_at_least_one(**numbers: int) -> None:
    """Raise ValueError for a number that is not an integer of at least 1."""
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError for a value that is not among the choices."""
    if value not in choices or isinstance(value, bool) is not isinstance(choices[0], bool):
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
