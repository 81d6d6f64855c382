"""Measurements of a network: how far it looks, how many parameters it has, how much it computes.

The context is found by gradient probing. Weights are made positive, and pooling and unpooling by the maximum become
averages over what they choose from: then no gradient cancels, dies in a ReLU or misses a choice, and a pixel has a
gradient if and only if the logits can depend on it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.geometry import Geometry, round_up

if TYPE_CHECKING:
    from models.interface import SegmentationModel

_WIDEST_PX = 4096  # a context that does not fit into half of this is called global
_FLOP_INPUT_PX = 1024
_STEP_IMAGES = 2  # batch normalization after global pooling needs more than one
_WEIGHTED = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def measure_context_px(network: nn.Module, sampling: Geometry) -> int | None:
    """Return how many pixels beyond a stride-aligned cell its logits depend on.

    Parameters
    ----------
    network : nn.Module
        From (1, 1, H, W) images to (1, 1, H, W) logits. It is spoilt: build one for this.
    sampling : Geometry
        Its stride, margin and remainder; the context is not looked at.

    Returns
    -------
    int or None
        None where the logits depend on the whole image, however wide it is, or where it cannot be told.

    Notes
    -----
    The image is a strip, one cell high where the network is padded: contexts of rows and of columns are equal for
    square kernels.
    """
    network.double().eval().apply(_make_averaging)
    stride, margin = sampling.stride_px, sampling.margin_px
    height = sampling.remainder_px or stride
    while height <= 2 * margin:
        height += stride
    width = round_up(512, stride) + sampling.remainder_px
    while width <= _WIDEST_PX:
        image = torch.linspace(1, 2, width, dtype=torch.float64).expand(1, 1, height, width)
        first = width // 2 // stride * stride
        last = first + stride - 1
        seen = _seen_columns(network, image, slice(first - margin, last - margin + 1))
        if not len(seen):  # normalized across channels that are all equal here: nothing can be said
            return None
        context = max(first - int(seen.min()), int(seen.max()) - last)
        if context < first - margin - stride:  # else it may end where the image ends
            return context
        width = 2 * (width - sampling.remainder_px) + sampling.remainder_px
    return None


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable numbers in a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def gflops_per_mpx(network: nn.Module, *, in_channels: int, sampling: Geometry) -> float:
    """Return 10⁹ floating-point operations (a multiply-add is two) per 10⁶ pixels of input, halos not counted.

    ``network`` may be on the device ``meta``: shapes are enough.
    """
    length = sampling.input_px(_FLOP_INPUT_PX)
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, in_channels, length, length, device=device))
    return float(counter.get_total_flops()) / 1e9 / (length**2 / 1e6)


def bytes_per_px(network: nn.Module, *, in_channels: int, sampling: Geometry) -> int:
    """Return the most memory that float32 activations take at a time, per pixel of a window, without gradients.

    ``network`` may be on the device ``meta``: shapes are enough.
    """
    length = sampling.input_px(_FLOP_INPUT_PX)
    device = next(network.parameters()).device
    network.eval()
    image = torch.empty(1, in_channels, length, length, device=device)
    live = _LiveBytes()
    with torch.no_grad(), live:
        network(image)
    most = live.most + image.untyped_storage().nbytes()
    return -(-most // length**2)


def training_bytes_per_px(network: SegmentationModel, *, num_classes: int) -> int:
    """Return the most memory that float32 activations and their gradients take in a step of training, per pixel.

    All activations are kept for the way back. What does not grow with the patch (weights, their gradients, the state of
    an optimizer) is left out: it is the slope between two sizes. ``network`` is on the device ``meta``, where sizes
    cost nothing.
    """
    network.train()
    most = []
    lengths = [network.geometry.input_px(length) for length in (_FLOP_INPUT_PX, 2 * _FLOP_INPUT_PX)]
    for length in lengths:
        network.zero_grad()
        image = torch.empty(_STEP_IMAGES, network.in_channels, length, length, device="meta")
        live = _LiveBytes()
        with torch.enable_grad(), live:
            losses = [_loss_to_weigh(logits, num_classes) for _, logits in network.logits_to_train(image)]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        most.append(live.most + image.untyped_storage().nbytes())
    return -(-(most[1] - most[0]) // (_STEP_IMAGES * (lengths[1] ** 2 - lengths[0] ** 2)))


def _loss_to_weigh(logits: Tensor, num_classes: int) -> Tensor:
    """Return a loss that takes about what those of training take: probabilities, a map of the target per class."""
    target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.int64, device=logits.device)
    one_hot = F.one_hot(target, num_classes).movedim(-1, 1).float()
    return F.cross_entropy(logits, target) + (logits.softmax(dim=1) * one_hot).mean()


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make, while these live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, then count what it made."""
        made = func(*args, **dict(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and (storage := leaf.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return made

    def _add(self, count: int) -> None:
        self.now += count
        self.most = max(self.most, self.now)


def _make_averaging(module: nn.Module) -> None:
    """Make a layer with weights an average over what it sees, and keep what a normalization returns positive."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.constant_(parameter, parameter.shape[0] / parameter.numel())
        else:
            nn.init.constant_(parameter, float(name == "weight" or not isinstance(module, _WEIGHTED)))


def _seen_columns(network: nn.Module, image: Tensor, columns: slice) -> Tensor:
    """Return the indices of the columns of the image that these columns of the logits depend on."""
    image = image.clone().requires_grad_()
    with _EveryChoice():
        network(image)[..., columns].sum().backward()
    assert image.grad is not None
    return image.grad[0, 0].abs().sum(dim=0).nonzero().flatten()


class _EveryChoice(TorchFunctionMode):
    """Let what chooses one of four pixels look at all four."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace the call of a function of torch."""
        options = dict(kwargs or {})
        if func in {F.max_pool2d, F.max_pool2d_with_indices}:
            image, size = args
            channels = image.shape[1]
            pooled = F.conv2d(
                image,
                image.new_full((channels, 1, size, size), 1 / size**2),
                stride=options["stride"] or size,
                padding=options["padding"],
                dilation=options["dilation"],
                groups=channels,
            )
            return (pooled, pooled) if options["return_indices"] else pooled
        if func is F.max_unpool2d:
            return F.interpolate(args[0], scale_factor=2, mode="nearest")
        return func(*args, **options)
