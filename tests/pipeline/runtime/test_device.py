"""A job uses as many devices as requested, or all visible ones."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.base.errors import SlidemillError
from pipeline.runtime import device
from pipeline.runtime.device import choose_devices, is_faster_in_bfloat16, is_out_of_memory


@pytest.fixture
def three_gpus(monkeypatch):
    """A machine that shows three GPUs, none of which another job holds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=index))
    monkeypatch.setattr(device, "lease", lambda names, count: list(range(len(names)))[:count])


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(("asked", "given"), [(1, [0]), (2, [0, 1]), (0, [0, 1, 2])])
def test_gpus_are_as_many_as_requested_or_all_visible_ones(asked, given):
    assert choose_devices(asked) == [torch.device("cuda", index) for index in given]


@pytest.mark.usefixtures("three_gpus")
def test_too_many_gpus_are_an_error_of_one_line():
    with pytest.raises(SlidemillError, match="4 GPUs requested, but this machine has 3"):
        choose_devices(4)


@pytest.mark.parametrize(("asked", "processes"), [(0, 1), (1, 1), (3, 3)])
def test_without_gpus_there_is_at_least_one_process(monkeypatch, asked, processes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_devices(asked) == [torch.device("cpu")] * processes


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)"),
        RuntimeError("Invalid buffer size: 16.00 GB"),
        RuntimeError("HIP error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
    ],
)
def test_messages_of_too_little_memory_are_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("expected 3 channels"), ValueError("out of memory"), OSError("disk")])
def test_other_errors_are_not_taken_for_too_little_memory(error):
    assert not is_out_of_memory(error)


def test_what_torch_raises_on_this_machine_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((12, 0), True)])
def test_gpus_have_tf32_since_ampere(monkeypatch, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.computes_tf32(torch.device("cuda")) == has
    assert not device.computes_tf32(torch.device("cpu"))


@pytest.mark.parametrize(
    ("processor", "is_faster"),
    [
        ({"vendor_id": "GenuineIntel", "flags": "avx2 avx512f avx512_bf16 amx_bf16 amx_tile"}, True),
        ({"vendor_id": "GenuineIntel", "flags": "avx2 avx512f avx512_bf16"}, False),  # as fast as float32 at most
        ({"vendor_id": "AuthenticAMD", "flags": "avx2 avx512f avx512_bf16"}, True),
        ({"vendor_id": "AuthenticAMD", "flags": "avx2"}, False),
        ({"Features": "fp asimd sve bf16"}, True),  # ARM
        ({"Features": "fp asimd"}, False),
        ({}, False),  # not Linux
    ],
)
def test_processors_that_gain_from_bfloat16(monkeypatch, processor, is_faster):
    monkeypatch.setattr(device, "_processor", lambda: processor)
    assert is_faster_in_bfloat16(torch.device("cpu")) is is_faster


def test_what_linux_says_of_the_first_processor(monkeypatch, tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nvendor_id\t: A\nflags\t\t: avx bf16\n\nprocessor\t: 1\nvendor_id\t: B\n")
    monkeypatch.setattr(device, "_PROCESSORS", told)
    assert device._processor() == {"processor": "0", "vendor_id": "A", "flags": "avx bf16"}
    monkeypatch.setattr(device, "_PROCESSORS", tmp_path / "none")
    assert device._processor() == {}
