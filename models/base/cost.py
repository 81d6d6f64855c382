"""Cost of a network: parameters, operations, memory of prediction and of training."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from models.base.geometry import Geometry
from models.base.interface import SegmentationModel

_FLOP_INPUT_PX = 1024
_STEP_IMAGES = 2  # batch normalization after global pooling needs more than one


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def gflops_per_mpx(network: nn.Module, *, in_channels: int, sampling: Geometry) -> float:
    """Return 10⁹ floating-point operations (a multiply-add is two) per 10⁶ pixels of input, without halos.

    ``network`` may be on the device ``meta``: shapes are enough.
    """
    length = sampling.input_px(_FLOP_INPUT_PX)
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, in_channels, length, length, device=device))
    return float(counter.get_total_flops()) / 1e9 / (length**2 / 1e6)


def bytes_per_px(network: nn.Module, *, in_channels: int, sampling: Geometry) -> int:
    """Return the peak memory of float32 activations per pixel of a window, without gradients.

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


def training_bytes_per_px(network: SegmentationModel) -> int:
    """Return the peak memory of float32 activations and their gradients in a training step, per pixel.

    It is the slope between two sizes of patches, without what does not grow with them: weights, their gradients, the
    state of the optimizer. ``network`` is on the device ``meta``, where no memory is needed.
    """
    network.train()
    most = []
    lengths = [network.geometry.input_px(length) for length in (_FLOP_INPUT_PX, 2 * _FLOP_INPUT_PX)]
    for length in lengths:
        network.zero_grad()
        image = torch.empty(_STEP_IMAGES, network.in_channels, length, length, device="meta")
        live = _LiveBytes()
        with torch.enable_grad(), live:
            losses = [_typical_loss(logits) for _, logits in network.logits_to_train(image)]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        most.append(live.most + image.untyped_storage().nbytes())
    return -(-(most[1] - most[0]) // (_STEP_IMAGES * (lengths[1] ** 2 - lengths[0] ** 2)))


def _typical_loss(logits: Tensor) -> Tensor:
    """Return a loss that takes about as much memory as those of training: probabilities, and a one-hot target."""
    target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.int64, device=logits.device)
    one_hot = F.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    return F.cross_entropy(logits, target) + (logits.softmax(dim=1) * one_hot).mean()


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors, and their maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run an operation, then count its results."""
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
