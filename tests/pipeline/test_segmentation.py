"""What is written behind is written in order, and nothing that goes wrong there is lost."""

import threading

import pytest

from pipeline.segmentation import behind


def test_items_are_consumed_in_order_in_another_thread():
    seen = []
    with behind(lambda item: seen.append((item, threading.current_thread()))) as put:
        for item in range(5):
            put(item)
        put(None)
        assert [item for item, _ in seen] == list(range(5))
    assert threading.current_thread() not in {thread for _, thread in seen}


def test_a_failure_to_write_stops_the_next_item():
    def consume(item):
        if item == 1:
            raise OSError("disk full")

    with behind(consume) as put:
        put(0)
        put(1)
        with pytest.raises(OSError, match="disk full"):
            put(2)


def test_a_failure_at_the_last_item_is_not_lost():
    def consume(item):
        raise OSError(f"disk full at {item}")

    with behind(consume) as put:
        put(7)
        with pytest.raises(OSError, match="disk full at 7"):
            put(None)
