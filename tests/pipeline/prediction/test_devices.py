"""Several devices share batches: each is done once, in order, also if devices fail; what comes out is that of one."""

import math
import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from pipeline.prediction import devices as devices_module
from pipeline.prediction import forward
from pipeline.prediction.devices import Device, Kept, Scored, score_all
from pipeline.prediction.forward import Windows, are_finite, label, label_windows, to_device
from pipeline.prediction.loop import Clock
from pipeline.prediction.resume import Progress
from pipeline.prediction.windows import Batch, Place
from pipeline.slides.intensity import Statistics, measure_intensities, normalize
from pipeline.tiling.grid import Grid
from tests.support.networks import network_with_batch_stats
from tests.support.prediction import plan_of


class Pretended:
    """A device that takes a while, unless it has failed; it remembers what it did."""

    def __init__(self, name, *, takes_s=0.001, workers=1, fails_after=None):
        self.name, self.workers = name, workers
        self.takes_s, self.fails_after = takes_s, fails_after
        self.done = []
        self._lock = threading.Lock()

    def score(self, batch):
        time.sleep(self.takes_s)
        with self._lock:
            if self.fails_after is not None and len(self.done) >= self.fails_after:
                raise RuntimeError(f"{self.name} fell off the bus\nand more")
            self.done.append(batch)
        return Scored(batch, None, self.takes_s)


def batches_done(devices):
    return sorted(batch for device in devices for batch in device.done)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_batch_is_done_once_and_the_order_is_kept(count, workers):
    devices = [Pretended(str(number), takes_s=0.001 * (number + 1), workers=workers) for number in range(count)]
    assert [scored.batch for scored in score_all(devices, range(40))] == list(range(40))
    assert batches_done(devices) == list(range(40))
    assert all(device.done for device in devices)


@pytest.mark.parametrize("fails_after", [0, 1, 7])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_batch_of_a_device_that_fails_is_done_by_another(caplog, workers, fails_after):
    devices = [Pretended("a", workers=workers), Pretended("b", workers=workers, fails_after=fails_after)]
    assert [scored.batch for scored in score_all(devices, range(40))] == list(range(40))
    assert batches_done(devices) == list(range(40))
    assert len(devices[1].done) == fails_after
    assert caplog.messages == ["b failed, and 1 go on: b fell off the bus"]


def test_a_device_may_fail_at_the_last_batch_when_the_others_are_done():
    devices = [Pretended("a"), Pretended("b", takes_s=0.05, fails_after=0)]
    assert [scored.batch for scored in score_all(devices, range(2))] == [0, 1]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_error_of_the_last_device_is_raised_after_all_that_is_done(count):
    devices = [Pretended(str(number), fails_after=3) for number in range(count)]
    done = []
    with pytest.raises(RuntimeError, match="fell off the bus"):
        done.extend(scored.batch for scored in score_all(devices, range(40)))
    assert done == list(range(len(done)))
    assert len(batches_done(devices)) == len(set(batches_done(devices))) == 3 * count


def test_few_batches_are_read_ahead_of_the_consumer():
    taken = []

    def batches():
        for number in range(40):
            taken.append(number)
            yield number

    for scored in score_all([Pretended("a"), Pretended("b")], batches()):
        assert len(taken) - scored.batch <= 2 + 2


def test_a_consumer_may_stop_early():
    stream = score_all([Pretended("a"), Pretended("b")], range(40))
    assert next(stream).batch == 0
    stream.close()


class VirtualTime:
    """Time that passes when something is said to take it."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def passes(self, seconds):
        self.now_s += seconds


@pytest.mark.parametrize("count", [1, 2])
def test_the_parts_of_the_time_are_those_in_which_devices_computed_and_waited(count):
    """Ten batches of 4 s on each device, read in 1 s and written in 3 s: devices are idle for what they wait for."""
    time_s, progress = VirtualTime(), Progress()
    clock = Clock(time_s)

    def reading():
        for number in range(10):
            time_s.passes(1)
            yield number

    for _ in clock.reading(reading()):
        if count == 1:
            time_s.passes(4)
        with clock.measure("writing"):
            time_s.passes(3)
        progress.add_time(clock.lap(4 / count), 1.0)
    wall = 80 if count == 1 else 40
    assert progress.seconds["wall"] == wall
    assert progress.seconds["network"] == 40 / count
    idle = wall - 40 / count
    assert progress.idle_s("reading") == idle / 4
    assert progress.idle_s("writing") == idle * 3 / 4


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_are_normalized_on_the_device_bit_for_bit_as_on_the_processor(generator, dtype, channels):
    limits = (0, 2) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    pixels = generator.integers(*limits, (2, channels, 70, 90)).astype(dtype)
    statistics = [measure_intensities(window) for window in pixels]
    expected = np.stack([normalize(window, channel) for window, channel in zip(pixels, statistics, strict=True)])
    windows = Windows(
        pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))),
        low=torch.tensor([[channel.low for channel in window] for window in statistics], dtype=torch.float32),
        scale=torch.tensor([[channel.scale for channel in window] for window in statistics], dtype=torch.float32),
    )
    found = to_device(windows, torch.empty(0))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.contiguous().numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_labels_and_doubt_are_those_of_argmax_and_of_sorting_bit_for_bit(
    generator, monkeypatch, classes, ties, dtype, memory_format
):
    monkeypatch.setattr(forward, "_BAND_VALUES", 7 * 50 * classes)  # the last rows of 60 are fewer
    logits = torch.from_numpy(generator.normal(size=(2, classes, 70, 60)).astype(np.float32) * 2)
    logits = (logits.round() if ties else logits).to(dtype).contiguous(memory_format=memory_format)[..., 8:68, 3:53]
    labels, uncertain = label(logits)
    np.testing.assert_array_equal(labels, logits.argmax(dim=1))
    near = logits > logits.amax(dim=1, keepdim=True) - math.log(3)
    np.testing.assert_array_equal(uncertain, near.sum(dim=1) > 1)


def test_numpy_labels_what_is_not_a_number_like_torch(generator):
    numbers = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, math.log(3), 1e30, 2.0**24])
    logits = numbers[torch.from_numpy(generator.integers(0, len(numbers), (3, 4, 80, 90)))]
    for found, expected in zip(label(logits), forward._compared(logits.unbind(1), torch), strict=True):
        assert torch.equal(found, expected)


class CopyStream:
    """Stands for a stream of CUDA."""

    def __init__(self, *_):
        self.waits = 0

    def synchronize(self):
        self.waits += 1


def batch_of(generator):
    grid = Grid(shape=(64, 64), tile=(64, 64), halo_px=16, surround_px=16, stride_px=16)
    plan = plan_of(grid, statistics=[Statistics(minimum=0, maximum=255, mean=99, low=3, high=200)])
    pixels = torch.from_numpy(generator.integers(0, 255, (1, 96, 96, 1), dtype=np.uint8))
    windows = Windows(pixels=pixels, low=torch.tensor([[3.0]]), scale=torch.tensor([[197.0]]))
    return Batch(places=[Place(sample="a", plan=plan, tile=next(grid.tiles()))], windows=windows, unreadable=[])


@pytest.mark.parametrize("fits", [True, False])
def test_a_gpu_copies_beside_what_it_computes_and_divides_what_does_not_fit(generator, monkeypatch, fits):
    """CUDA is replaced by stubs: windows are copied on a stream of their own, before it is their turn."""
    network, batch = network_with_batch_stats("unet", width=2, depth=1), batch_of(generator)
    kept = Kept(num_classes=2, probabilities=False, heads=[])
    expected = Device(network, kept).score(batch).scores
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    gpu, copied = Device(network, kept), []
    gpu._copies, on = CopyStream(), Windows.on

    def copy(windows, device):
        copied.append(gpu._turn.locked())
        if not fits and len(copied) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return on(windows, device)

    monkeypatch.setattr(Windows, "on", copy)
    found = gpu.score(batch).scores
    assert copied == [False, True]  # the second time, they are there already, unless they did not fit
    assert gpu._copies.waits == fits
    for name in ("labels", "uncertain", "finite"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_windows_go_to_a_gpu_from_pinned_memory(monkeypatch):
    pixels, calls = torch.zeros(1, 2, 3, 1, dtype=torch.uint8), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **how: calls.append((device.type, how)) or tensor)
    assert Windows(pixels=pixels).on(torch.device("cuda")).pixels is pixels
    assert calls == ["pinned", ("cuda", {"non_blocking": True})]


def test_a_window_is_finite_if_each_of_its_values_is_also_if_their_sum_is_not():
    output = torch.full((3, 2, 4, 4), 3e38)
    output[1, 1, 2, 2] = -math.inf
    output[2] = 0.0
    np.testing.assert_array_equal(are_finite(output), [True, False, True])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_windows_are_labelled_and_doubt_counted_in_their_part_in_one_pass(generator, monkeypatch, dtype, memory_format):
    monkeypatch.setattr(forward, "_BAND_VALUES", 7 * 50 * 3)
    logits = torch.from_numpy(generator.normal(size=(5, 3, 60, 50)).astype(np.float32) * 2)
    logits[0] = 3e38  # finite, but not their sum
    for window, place, value in [(1, (0, 0, 0), math.nan), (2, (2, 59, 49), math.inf), (3, (1, 30, 20), -math.inf)]:
        logits[window, *place] = value
    logits = logits.to(dtype).contiguous(memory_format=memory_format)
    parts = [(slice(60), slice(50)), (slice(1), slice(50)), (slice(60), slice(1)), (slice(20), slice(30))]
    parts.append((slice(60), slice(50)))
    labelled = label_windows(logits, parts)
    labels, uncertain = label(logits)
    np.testing.assert_array_equal(labelled.labels, labels)
    counts = [one[part].sum() for one, part in zip(uncertain, parts, strict=True)]
    np.testing.assert_array_equal(labelled.uncertain, counts)
    np.testing.assert_array_equal(labelled.finite, [True, False, False, False, True])


def test_a_head_that_is_not_finite_makes_its_window_so(generator):
    places = batch_of(generator).places * 2
    output = torch.zeros(2, 3, 64, 64)
    output[1, 2, 63, 63] = math.nan
    kept = Kept(num_classes=2, probabilities=False, heads=[])
    found = devices_module._score(output, places, kept)
    np.testing.assert_array_equal(found.finite, [True, False])
