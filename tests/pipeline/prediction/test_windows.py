"""Batches are read ahead in order; a damaged slide affects its own windows only."""

from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prediction import windows
from pipeline.prediction.forward import to_device
from pipeline.prediction.windows import grouped, read_batches
from pipeline.settings.schema import ImageConfig
from pipeline.slides.intensity import Statistics
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import SlidePlan

UNIT = Statistics(minimum=0, maximum=1, mean=0.5, low=0, high=1)


def plan_of(path, shape, side=32):
    grid = Grid(shape=shape, tile=(side, side), halo_px=16, surround_px=16, stride_px=16)
    return SlidePlan(slide=path, slide_sha256="", grid=grid, view=ImageConfig(), statistics=[UNIT], pixel_size_um=None)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=5),
    batch_px=st.integers(1, 40_000),
    mixed=st.booleans(),
)
def test_groups_contain_every_tile_once_in_order_with_one_shape_and_limited_pixels(shapes, batch_px, mixed):
    slides = [(str(index), plan_of(Path("none"), shape)) for index, shape in enumerate(shapes)]
    groups = list(grouped(slides, batch_px, mixed=mixed))
    tiles = [(sample, tile) for sample, plan in slides for tile in plan.grid.tiles()]
    assert [(place.sample, place.tile) for group in groups for place in group] == tiles
    for group in groups:
        (shape,) = {place.tile.read.shape for place in group}
        assert len(group) == 1 or len(group) * shape[0] * shape[1] <= batch_px


def test_windows_of_several_small_slides_are_grouped_if_they_may_be_mixed():
    slides = [(str(index), plan_of(Path("none"), (32, 32))) for index in range(10)]
    assert [len(group) for group in grouped(slides, 4 * 64 * 64, mixed=True)] == [4, 4, 2]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=5), batch_px=st.integers(1, 40_000)
)
def test_the_groups_of_a_slide_do_not_depend_on_the_others_unless_they_are_mixed(shapes, batch_px):
    slides = [(str(index), plan_of(Path("none"), shape)) for index, shape in enumerate(shapes)]
    together = list(grouped(slides, batch_px, mixed=False))
    assert together == [group for slide in slides for group in grouped([slide], batch_px, mixed=False)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_slide_is_reported_once_and_the_others_are_read(tmp_path, generator, threads):
    slides = []
    for name in ("a", "damaged", "c"):
        pixels = generator.integers(0, 255, (100, 90), dtype=np.uint8)
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, compression="zlib", tile=(16, 16))
        slides.append((name, plan_of(tmp_path / f"{name}.tif", (100, 90))))
    content = bytearray((tmp_path / "damaged.tif").read_bytes())
    content[-4000:-1000] = bytes(3000)
    (tmp_path / "damaged.tif").write_bytes(content)
    batches = list(read_batches(slides, batch_px=3 * 64 * 64, mixed=True, memory_mb=1000, threads=threads, ahead=2))
    reasons = [reason for batch in batches for reason in batch.unreadable]
    assert [reason.sample for reason in reasons] == ["damaged"]
    assert "damaged.tif: cannot be read" in str(reasons[0].error)
    read = {
        (place.sample, place.tile): pixels
        for b in batches
        for place, pixels in zip(b.places, to_device(b.windows, torch.empty(0)), strict=True)
    }
    for name, plan in (slides[0], slides[2]):
        whole = np.pad(tifffile.imread(tmp_path / f"{name}.tif"), 200, mode="reflect")
        for tile in plan.grid.tiles():
            rows, columns = (slice(s.start + 200, s.stop + 200) for s in tile.read.slices)
            np.testing.assert_array_equal(read[name, tile][0], whole[rows, columns])


@pytest.mark.parametrize("function", ["open_slide", "read_mirrored"])
def test_slides_are_opened_and_windows_read_by_all_threads_at_once(tmp_path, monkeypatch, function):
    """Each waits for all others, which it never meets if one thread comes after the other."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((32, 32), np.uint8))
    threads, called = 4, getattr(windows, function)
    together = Barrier(threads, timeout=30)

    def meet(*arguments, **named):
        together.wait()
        return called(*arguments, **named)

    monkeypatch.setattr(windows, function, meet)
    slides = [(str(number), plan_of(tmp_path / "a.tif", (32, 32))) for number in range(2 * threads)]
    limits = {"batch_px": threads * 64 * 64, "mixed": True, "memory_mb": 1000}
    batches = list(read_batches(slides, **limits, threads=threads, ahead=1))
    assert [len(batch.places) for batch in batches] == [threads, threads]
    assert not any(batch.unreadable for batch in batches)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_slide_is_opened_once_and_closed_after_its_last_window(tmp_path, monkeypatch, threads):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 90), np.uint8))
    opened, closed, called = [], [], windows.open_slide

    @contextmanager
    def counted(path, **how):
        opened.append(path)
        with called(path, **how) as slide:
            yield slide
        closed.append(path)

    monkeypatch.setattr(windows, "open_slide", counted)
    plan = plan_of(tmp_path / "a.tif", (100, 90))
    batches = read_batches([("a", plan)], batch_px=4 * 64**2, mixed=True, memory_mb=1000, threads=threads, ahead=2)
    assert sum(len(batch.places) for batch in batches) == plan.count == 12
    assert opened == closed == [tmp_path / "a.tif"]


def test_a_slide_that_changed_its_size_is_an_error(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((30, 40), np.uint8))
    slides = [("a", plan_of(tmp_path / "a.tif", (30, 41)))]
    batch, *_ = read_batches(slides, batch_px=1, mixed=True, memory_mb=1000, threads=1, ahead=1)
    assert "planned with (30, 41); run again" in str(batch.unreadable[0].error)
