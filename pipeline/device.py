"""The device that computes, and the settings that make it fast. Training and prediction share them."""

from __future__ import annotations

import ctypes
import logging
import sys

import torch

from pipeline.lease import lease

log = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>


def choose_device() -> torch.device:
    """Return a CUDA device that no other job of this machine holds, else Apple's GPU (MPS), else the processor."""
    if torch.cuda.is_available():
        names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
        return torch.device("cuda", lease(names))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def prepare(threads: int) -> torch.device:
    """Set up this process for a network: threads, heap, device. Call it once, when a stage starts."""
    torch.set_num_threads(threads)
    _keep_heap()
    device = choose_device()
    if device.type == "cuda":  # float32 as it is defined; TF32 keeps 10 bits of 23, and tiles would not equal the whole
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    log.info("device %s, %d threads, processor capability %s", device, threads, torch.backends.cpu.get_cpu_capability())
    return device


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
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _processor_has(*flags: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return any(flag in line.split() for flag in flags)
