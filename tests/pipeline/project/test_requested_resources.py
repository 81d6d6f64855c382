"""Jobs ask for memory and time by their slides: more for larger ones, more with every attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.files import state_of
from pipeline.project.drop.drop_folder import Sample
from pipeline.project.drop.image_files import parts_of
from pipeline.project.requested_resources import (
    affordable_mb,
    batch_mb,
    files_mpx,
    minutes,
    minutes_to_train,
    slide_mpx,
    workers_within,
)
from pipeline.runtime.job_limits import Limit
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import MaskConfig
from pipeline.settings.networks import ModelConfig

MPX = st.floats(0, 1e6)
STAGES = ["weigh", "tile", "predict", "validate", "stitch", "objects", "evaluate"]


def sample(path="data/slides/a.svs", size=1_000_000_000):
    return Sample(slide=path, version=f"{size} bytes, 5 ns")


@given(one=MPX, other=MPX, attempt=st.integers(1, 5), stage=st.sampled_from(STAGES), budget=st.integers(1000, 64_000))
def test_requests_grow_with_slides_and_attempts(one, other, attempt, stage, budget):
    small, large = sorted([one, other])
    assert 10 <= minutes(stage, small, attempt) <= minutes(stage, large, attempt) < minutes(stage, large, attempt + 1)
    assert batch_mb([small], 2, budget, attempt) <= batch_mb([large], 2, budget, attempt)
    assert batch_mb([large], 2, budget, attempt) < batch_mb([large], 2, budget, attempt + 1)
    assert batch_mb([large], 2, budget, attempt) <= batch_mb([large] * 3, 2, budget, attempt)
    assert batch_mb([large] * 3, 2, budget, attempt) <= 2000 * attempt + budget


def test_requests_by_hand():
    assert batch_mb([1.0], 8, 4000, 1) == 1024
    assert batch_mb([1.0] * 100, 8, 4000, 1) == 8192
    assert batch_mb([10_000.0], 8, 4000, 1) == 2000
    assert batch_mb([10_000.0], 8, 4000, 4) == 8000
    assert minutes("predict", 3000.0, 1) == 110
    assert minutes("predict", 3000.0, 2) == 220
    assert minutes_to_train(ModelConfig(max_steps=1500), 1) == 130
    assert minutes_to_train(ModelConfig(max_steps=1500, max_minutes=10.0), 2) == 84


def test_a_random_field_takes_time():
    """Half of the 25 pi neighbours of a pixel, in five iterations."""
    assert MaskConfig().pairs_per_px == 0
    usual = MaskConfig(crf="auto").pairs_per_px
    assert round(usual) == round(MaskConfig(crf=CrfConfig()).pairs_per_px) == 196
    assert minutes("stitch", 1000.0, 1, pairs_per_px=usual) == 10 + 10 + 49


@given(sizes=st.lists(st.integers(0, 10**9), min_size=1), threads=st.integers(1, 64), budget=st.integers(1000, 64_000))
def test_a_pool_fits_into_memory_and_has_no_idle_process(sizes, threads, budget):
    samples = [sample("a.tif", size) for size in sizes]
    workers = workers_within(samples, threads=threads, memory_mb=budget)
    assert 1 <= workers <= min(threads, len(samples))
    decoded_mb = min(max(slide_mpx(one) for one in samples) * 24, budget)
    assert workers == 1 or workers * decoded_mb <= budget


def test_a_pool_has_a_process_for_each_thread_unless_slides_are_large():
    assert workers_within([sample("a.tif", 100_000)] * 9, threads=4, memory_mb=4000) == 4
    assert workers_within([sample("a.tif", 100_000)] * 3, threads=4, memory_mb=4000) == 3
    assert workers_within([sample("a.svs", 20_000_000)] * 9, threads=4, memory_mb=4000) == 2
    assert workers_within([], threads=4, memory_mb=4000) == 0


def test_a_slide_in_many_files_has_the_pixels_of_their_bytes(tmp_path):
    for name in ("image.ome.zarr/0/0/0", "image.ome.zarr/1/0/0", "mirax.mrxs", "mirax/Data0001.dat", "one.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(500_000))
    for name, mpx in (("image.ome.zarr", 4), ("image.ome.zarr/1", 2), ("mirax.mrxs", 4), ("one.tif", 2)):
        version = state_of(tmp_path / name, *parts_of(tmp_path / name))
        assert slide_mpx(Sample(slide=str(tmp_path / name), version=version)) == pytest.approx(mpx, abs=0.2)
        assert files_mpx([tmp_path / name]) == pytest.approx(mpx, abs=0.2)  # a folder has some bytes of its own
    assert files_mpx([tmp_path / "one.tif"] * 2) == 4


@pytest.mark.parametrize(
    ("memory_mb", "expected"), [(64_000, 4000), (4500, 4000), (4000, 3600), (3000, 2700), (1050, 1000), (500, 1000)]
)
def test_a_budget_above_the_memory_is_lowered_with_a_warning(memory_mb, expected):
    budget, line = affordable_mb(4000, Limit(memory_mb, "memory.max"))
    assert budget == expected
    assert bool(line) == (budget < 4000)
    if line:
        assert all(part in line for part in ("4000", str(memory_mb), "memory.max", str(expected)))
