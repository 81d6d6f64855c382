"""Writing behind keeps the order and all errors; windows that exceed the memory are refused."""

import threading
from types import SimpleNamespace

import pytest

from pipeline.base.errors import ConfigError
from pipeline.networks.weights_file import load_network
from pipeline.prediction.loop import segment_slides, write_behind
from pipeline.runtime.job_limits import Limit
from pipeline.slides.intensity import Statistics
from pipeline.tiling.grid import Grid
from tests.support.networks import write_network
from tests.support.prediction import plan_of


def test_items_are_consumed_in_order_in_another_thread():
    seen = []
    with write_behind(lambda item: seen.append((item, threading.current_thread()))) as put:
        for item in range(5):
            put(item)
        put(None)
        assert [item for item, _ in seen] == list(range(5))
    assert threading.current_thread() not in {thread for _, thread in seen}


@pytest.mark.parametrize("after", [2, None])
def test_a_failure_to_write_stops_the_next_item_and_is_not_lost_at_the_last(after):
    def consume(item):
        if item == 1:
            raise OSError(f"disk full at {item}")

    with write_behind(consume) as put:
        put(0)
        put(1)
        with pytest.raises(OSError, match="disk full at 1"):
            put(after)


def test_windows_that_exceed_the_memory_of_the_job_are_refused_before_reading(tmp_path, monkeypatch):
    network, card = load_network(write_network(tmp_path, width=2))
    grid = Grid(shape=(4000, 4000), tile=(2048, 2048), halo_px=96, stride_px=16)
    plan = plan_of(grid, statistics=[Statistics(minimum=0, maximum=1, mean=0.5, low=0, high=1)])
    monkeypatch.setattr("pipeline.prediction.loop.memory_limit", lambda: Limit(900, "memory.max"))
    not_begun = SimpleNamespace(records=[])
    with pytest.raises(ConfigError, match=r"this job may take 900 MB \(memory.max\)"):
        segment_slides(network, card, [("a", plan)], not_begun, memory_mb=4000, threads=1)
