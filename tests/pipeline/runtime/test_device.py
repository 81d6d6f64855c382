"""A job uses as many devices as requested, or all visible ones."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.base.errors import SlidemillError
from pipeline.runtime import device
from pipeline.runtime.device import choose_devices


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
