"""Devices for training and prediction, and process-wide settings that make them fast and exact."""

from __future__ import annotations

import ctypes
import itertools
import logging
import sys
from pathlib import Path

import torch

from pipeline.base.errors import SlidemillError
from pipeline.runtime.device_lease import lease
from pipeline.runtime.job_limits import memory_limit
from pipeline.runtime.threads import use_threads

log = logging.getLogger(__name__)

# Messages of torch for which it has no class of error: of a CPU (Linux, Windows), the CUDA and HIP runtime and MPS,
# of cuBLAS and cuDNN, of cuDNN if no workspace fits, and of an MPS buffer beyond the largest one.
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "unable to find an engine to execute",
    "Invalid buffer size",
)
_PROCESSORS = Path("/proc/cpuinfo")  # of Linux
_AMPERE = (8, 0)  # compute capability of the first GPUs with TF32
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>


def choose_devices(count: int) -> list[torch.device]:
    """Return ``count`` CUDA devices that no other job on this machine uses; without CUDA, Apple's GPU (MPS).

    A ``count`` of 0 means all visible devices, which are those that a scheduler assigned. Without any GPU, the list has
    the processor ``count`` times, once for each process.

    Raises
    ------
    SlidemillError
        If the machine has fewer GPUs.
    """
    if torch.cuda.is_available():
        names = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
        if count > len(names):
            raise SlidemillError(f"{count} GPUs requested, but this machine has {len(names)}; request fewer")
        return [torch.device("cuda", index) for index in lease(names, count or len(names))]
    if torch.backends.mps.is_available():
        if count > 1:
            raise SlidemillError(f"{count} GPUs requested, but this machine has 1; request one")
        return [torch.device("mps")]
    return [torch.device("cpu")] * max(1, count)


def prepare(threads: int, devices: int = 1) -> list[torch.device]:
    """Set threads, heap and arithmetic of this process and return its devices. Call it once, when a stage starts.

    These are ``devices`` GPUs (0: all visible ones), or the processor, once.
    """
    set_up_process(threads)
    chosen = list(dict.fromkeys(choose_devices(devices)))
    names, capability = ", ".join(map(str, chosen)), torch.backends.cpu.get_cpu_capability()
    log.info("device %s, %d threads, processor capability %s", names, threads, capability)
    if limit := memory_limit():
        log.info("at most %d MB of memory (%s)", *limit)
    return chosen


def set_up_process(threads: int) -> None:
    """Set threads, heap and arithmetic, so that networks in this process are fast and exact."""
    use_threads(threads)
    _keep_heap()
    allow_tf32(False)  # tiles would not equal the whole slide


def allow_tf32(is_allowed: bool) -> None:
    """Set whether GPUs of NVIDIA may keep 10 of the 23 bits of float32 when they multiply."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = is_allowed


def is_tf32_allowed() -> bool:
    """Return what :func:`allow_tf32` has set."""
    return bool(torch.backends.cuda.matmul.allow_tf32)


def computes_tf32(device: torch.device) -> bool:
    """Return whether the device has TF32 in hardware; others compute in float32 where it is allowed."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


def is_faster_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 faster than in float32, which not all that have it do.

    The bfloat16 instructions of AVX-512 do two products in the place of one. Processors of Intel can start one where
    they could start two in float32, and gain from matrix units (AMX) alone; those of AMD gain.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is about the current device
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        known = _processor()
        flags = known.get("flags", known.get("Features", "")).split()
        gains = {"amx_bf16", "bf16"} | ({"avx512_bf16"} if known.get("vendor_id") == "AuthenticAMD" else set())
        return not gains.isdisjoint(flags)
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a device, or that of the process, is too small for what was computed or copied."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(message in str(error) for message in _NO_MEMORY))


def free_cached_memory(device: torch.device) -> None:
    """Return the memory of a GPU that torch keeps for itself, so that libraries beside it can allocate."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _keep_heap() -> None:
    """Let glibc keep freed memory: requesting it again for each large activation takes longer than computing that."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never: with a threshold of 2 GiB the heap grew larger (decision 16)


def _processor() -> dict[str, str]:
    """Return what Linux says of the first processor, such as ``vendor_id`` and ``flags``; nothing elsewhere."""
    try:
        with _PROCESSORS.open(encoding="ascii", errors="replace") as file:
            lines = [line.partition(":") for line in itertools.takewhile(str.strip, file)]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in lines}
