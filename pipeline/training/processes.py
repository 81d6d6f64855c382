"""Training in several processes, one per device, with the result of one process.

Each process has a part of every batch. Batch normalization and the loss are computed over the whole batch: the parts
are gathered, with their gradients. So every process has the same loss L, and the gradients of its part are those of the
sum of all losses, P L; DistributedDataParallel takes the mean over the P processes, which is the gradient of L.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from pipeline.base.errors import SlidemillError
from pipeline.runtime.device import is_faster_in_bfloat16, set_up_process
from pipeline.runtime.logs import start_logging

log = logging.getLogger(__name__)

_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
_TIMEOUT = timedelta(hours=6)  # the other processes wait while the first one validates


def start_fabric(devices: list[torch.device], precision: str) -> Fabric:
    """Return the Fabric that trains on devices, with one process for each.

    Parameters
    ----------
    devices : list of torch.device
        Of one kind; the CPU may be repeated.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``auto`` is bfloat16 if the device computes faster in it, else float32.

    Raises
    ------
    SlidemillError
        For float16 on anything but CUDA.
    """
    device = devices[0]
    if precision == "auto":
        precision = "bfloat16" if is_faster_in_bfloat16(device) else "float32"
    if precision == "float16" and device.type != "cuda":
        raise SlidemillError(f"precision float16 needs a CUDA device, and this is {device}; use auto")
    log.info("training on %s in %s", ", ".join(map(str, devices)), precision)
    choice: Any = [one.index for one in devices] if device.type == "cuda" else len(devices)
    several: dict[str, Any] = {"strategy": DDPStrategy(start_method="spawn", timeout=_TIMEOUT)}
    return Fabric(
        accelerator=device.type,
        devices=choice,
        precision=_PRECISIONS[precision],  # type: ignore[arg-type]
        plugins=[LightningEnvironment()],  # start the processes here, also in a job of a cluster
        **(several if len(devices) > 1 else {}),
    )


def run_processes(fabric: Fabric, function: Callable[..., None], *arguments: object) -> None:
    """Call ``function(fabric, *arguments)`` in each process (in this one if there is only one); wait for all.

    Raises
    ------
    SlidemillError
        If a process raises one or is killed; the others are ended.
    """
    threads = max(1, torch.get_num_threads() // fabric.world_size)
    try:
        if fabric.world_size == 1:
            fabric.launch()
            function(fabric, *arguments)
        else:
            copied = pickle.dumps((function, arguments))  # else torch shares the weights among processes
            fabric.launch(_start_process, threads, copied)  # type: ignore[arg-type]
    except ProcessRaisedException as error:
        kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if kind.startswith(SlidemillError.__module__):
            raise SlidemillError(message) from error
        raise
    except ProcessExitedException as error:
        raise SlidemillError(f"a training process died: {error}; is there enough memory?") from error


def _start_process(fabric: Fabric, threads: int, copied: bytes) -> None:
    """Set up a new process, then call the function in it."""
    start_logging(logging.INFO if fabric.is_global_zero else logging.WARNING)
    set_up_process(threads)
    function, arguments = pickle.loads(copied)
    try:
        function(fabric, *arguments)
    finally:
        torch.distributed.destroy_process_group()


def processes() -> int:
    """Return the number of processes that train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def gather(part: Tensor) -> Tensor:
    """Concatenate the parts of all processes along the first axis; differentiable."""
    return part if processes() == 1 else torch.cat(_Gather.apply(part))


class _Gather(torch.autograd.Function):
    """Gathers the parts of all processes; the gradient of a part is the sum over all processes."""

    @staticmethod
    def forward(_: Any, part: Tensor) -> tuple[Tensor, ...]:
        part = part.contiguous()
        parts = [torch.empty_like(part) for _ in range(processes())]
        torch.distributed.all_gather(parts, part)
        return tuple(parts)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = torch.stack([gradient.contiguous() for gradient in gradients])
        torch.distributed.all_reduce(total)
        return total[torch.distributed.get_rank()]


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over all processes, whose parts have equal sizes.

    SyncBatchNorm of torch does the same, on GPUs only.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Normalize (N, C, H, W), in evaluation mode by the trained statistics."""
        if not self.training:
            return super().forward(image)
        values = image.float()
        own = torch.stack([values.mean((0, 2, 3)), values.var((0, 2, 3), correction=0)])
        means, variances = gather(own[None]).unbind(1)  # (P, C) each
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._update_statistics(mean.detach(), variance.detach(), values.numel() // len(mean) * processes())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        centred = values - mean[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(image.dtype)

    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


def share_batch_norm(network: nn.Module) -> None:
    """Compute every batch normalization of a network over all processes; modules are changed in place.

    Raises
    ------
    SlidemillError
        If one is of another class, whose function is not known; some of ``smp/...`` have an activation inside.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SharedBatchNorm):
            raise SlidemillError(
                f"batch normalization of the class {type(module).__name__} cannot be computed over several processes; "
                "train this network on one device, or choose another encoder"
            )
