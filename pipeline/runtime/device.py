"""The device that computes, and the settings that make it fast. Training and prediction share them."""

from __future__ import annotations

import ctypes
import logging
import sys

import torch

from pipeline.base.errors import SlidemillError
from pipeline.runtime.device_lease import lease
from pipeline.runtime.limits import memory_limit
from pipeline.runtime.threads import use_threads

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>


def choose_devices(count: int) -> list[torch.device]:
    """Return ``count`` CUDA devices that no other job of this machine holds; where there are none, Apple's GPU (MPS).

    0 stands for all that this process is shown, which is what a scheduler gave it. The processor, where there is
    neither, stands in the list ``count`` times: once for each process.

    Raises
    ------
    SlidemillError
        If the machine has fewer GPUs.
    """
    if torch.cuda.is_available():
        names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
        if count > len(names):
            raise SlidemillError(f"{count} GPUs are asked for, this machine shows {len(names)}; ask for fewer")
        return [torch.device("cuda", index) for index in lease(names, count or len(names))]
    if torch.backends.mps.is_available():
        if count > 1:
            raise SlidemillError(f"{count} GPUs are asked for, this machine has 1; ask for one")
        return [torch.device("mps")]
    return [torch.device("cpu")] * max(1, count)


def prepare(threads: int) -> torch.device:
    """Set up this process for a network: threads, heap, device. Call it once, when a stage starts."""
    set_up_process(threads)
    device = choose_devices(1)[0]
    log.info("device %s, %d threads, processor capability %s", device, threads, torch.backends.cpu.get_cpu_capability())
    if limit := memory_limit():
        log.info("at most %d MB of memory (%s)", *limit)
    return device


def set_up_process(threads: int) -> None:
    """Set what makes any network fast, and exact, in this process: its threads, heap and arithmetic."""
    use_threads(threads)
    _keep_heap()
    # float32 as it is defined; TF32 keeps 10 bits of 23, and tiles would not equal the whole
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def computes_bfloat16(device: torch.device) -> bool:
    """Say whether the device has bfloat16 in hardware. Emulated, it is up to a hundred times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return _processor_has("avx512_bf16", "amx_bf16", "bf16")
    return False


def _keep_heap() -> None:
    """Let glibc keep freed memory: mapping each large activation anew costs more than computing it."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, -1)  # none of it: cut back at 2 GiB, it grows larger (decision 16)


def _processor_has(*flags: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return any(flag in line.split() for flag in flags)
