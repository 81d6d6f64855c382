"""A job computes on as many devices as it is given, and on those that it is shown where it is not told how many."""

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
def test_gpus_are_those_asked_for_or_all_that_are_shown(asked, given):
    assert choose_devices(asked) == [torch.device("cuda", index) for index in given]


@pytest.mark.usefixtures("three_gpus")
def test_more_gpus_than_there_are_is_one_clear_line():
    with pytest.raises(SlidemillError, match="4 GPUs requested, but this machine has 3"):
        choose_devices(4)


@pytest.mark.parametrize(("asked", "processes"), [(0, 1), (1, 1), (3, 3)])
def test_without_gpus_there_is_a_process_at_least(monkeypatch, asked, processes):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_devices(asked) == [torch.device("cpu")] * processes
