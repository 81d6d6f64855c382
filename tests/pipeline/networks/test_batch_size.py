"""How many windows a GPU takes at once: by pretended times, since the tests have no card."""

import json

import pytest
import torch

from pipeline.networks import batch_size
from pipeline.networks.batch_size import fastest_batch_px, remembered_batch_px
from pipeline.prediction.loop import batch_limit_px
from tests.support.networks import network_with_batch_stats

WINDOW = (1, 64, 32)
PX = 64 * 32


def pretended(seconds_of_a_window, tried=None):
    """Times of passes, in seconds per window, by the number of windows; None: they do not fit."""

    def seconds(_, shape):
        count = shape[0]
        assert shape[1:] == WINDOW
        if tried is not None:
            tried.append(count)
        if seconds_of_a_window[count] is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return count * seconds_of_a_window[count]

    return seconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 8, 2: 4, 4: 2, 8: 1.99, 16: 1.98, 32: 1.98}, 4),  # the others are hardly faster
        ({1: 8, 2: 4, 4: 2, 8: 1, 16: 3, 32: 3}, 8),  # nor slower ones
        ({1: 1, 2: 1, 4: 1, 8: 1, 16: 1, 32: 1}, 1),
        ({1: 8, 2: 4, 4: 2, 8: None}, 4),  # what does not fit ends the search
        ({1: None}, 1),  # a single window is then divided by the loop
    ],
)
def test_the_smallest_batch_that_is_nearly_the_fastest_is_taken(seconds, expected):
    network = network_with_batch_stats(width=2, depth=1)
    assert fastest_batch_px(network, WINDOW, 33 * PX, seconds=pretended(seconds)) == expected * PX


def test_no_batch_is_larger_than_the_memory_of_the_job_allows():
    tried = []
    seconds = pretended(dict.fromkeys((1, 2, 4, 8), 1), tried)
    fastest_batch_px(network_with_batch_stats(width=2, depth=1), WINDOW, 4 * PX, seconds=seconds)
    assert tried == [1, 2, 4]
    tried.clear()
    fastest_batch_px(network_with_batch_stats(width=2, depth=1), WINDOW, PX // 2, seconds=seconds)
    assert tried == [1]
    assert batch_limit_px(100, torch.device("cuda"), 50) == 50
    assert batch_limit_px(100, torch.device("cuda"), 200) == 100


def test_other_errors_of_the_network_are_not_hidden():
    def broken(*_):
        raise RuntimeError("device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side"):
        fastest_batch_px(network_with_batch_stats(width=2, depth=1), WINDOW, PX, seconds=broken)


def test_a_measurement_is_remembered_until_something_changes(tmp_path, monkeypatch):
    network = network_with_batch_stats(width=2, depth=1)
    measured = []
    monkeypatch.setattr(batch_size, "fastest_batch_px", lambda *values: measured.append(values) or PX)
    file = tmp_path / "batch_px.json"
    for _ in range(2):
        assert remembered_batch_px(file, network, "a", WINDOW, 8 * PX) == PX
    assert len(measured) == 1
    remembered_batch_px(file, network, "b", WINDOW, 8 * PX)
    remembered_batch_px(file, network, "a", (1, 32, 32), 8 * PX)
    remembered_batch_px(file, network, "a", WINDOW, 9 * PX)
    remembered_batch_px(file, network.double(), "a", WINDOW, 8 * PX)
    assert len(measured) == 5
    assert sorted(json.loads(file.read_text("utf-8")).values()) == [PX] * 5
    file.write_text("{", encoding="utf-8")
    assert remembered_batch_px(file, network.float(), "a", WINDOW, 8 * PX) == PX
    assert len(measured) == 6


def test_a_real_network_is_timed():
    network = network_with_batch_stats(width=2, depth=1)
    assert fastest_batch_px(network, WINDOW, 4 * PX) in (PX, 2 * PX, 4 * PX)
