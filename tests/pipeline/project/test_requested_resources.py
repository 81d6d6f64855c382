"""Jobs ask for memory and time by their slides: more for larger ones, more with every attempt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.project.drop_folder import Sample
from pipeline.project.requested_resources import (
    affordable_mb,
    files_mpx,
    minutes,
    minutes_to_train,
    reading_mb,
    slide_mpx,
)
from pipeline.runtime.job_limits import Limit
from pipeline.settings.networks import ModelConfig

MPX = st.floats(0, 1e6)
STAGES = ["weigh", "tile", "inspect", "predict", "validate", "stitch", "objects", "evaluate"]


def sample(path="data/slides/a.svs", size=1_000_000_000):
    return Sample(slide=path, version=f"{size} bytes, 5 ns")


@given(one=MPX, other=MPX, attempt=st.integers(1, 5), stage=st.sampled_from(STAGES), budget=st.integers(1000, 64_000))
def test_requests_grow_with_slides_and_attempts(one, other, attempt, stage, budget):
    small, large = sorted([one, other])
    assert 10 <= minutes(stage, small, attempt) <= minutes(stage, large, attempt) < minutes(stage, large, attempt + 1)
    assert reading_mb(small, budget, attempt) <= reading_mb(large, budget, attempt)
    assert reading_mb(large, budget, attempt) < reading_mb(large, budget, attempt + 1)
    assert reading_mb(large, budget, attempt) <= 1000 * attempt + budget


def test_requests_by_hand():
    assert reading_mb(1.0, 4000, 1) == 1024
    assert reading_mb(10_000.0, 4000, 1) == 2000
    assert reading_mb(10_000.0, 4000, 2) == 4000
    assert reading_mb(10_000.0, 4000, 4) == 8000
    assert minutes("predict", 3000.0, 1) == 110
    assert minutes("predict", 3000.0, 2) == 220
    assert minutes_to_train(ModelConfig(max_steps=1500), 1) == 130
    assert minutes_to_train(ModelConfig(max_steps=1500, max_minutes=10.0), 2) == 84


def test_a_slide_has_the_pixels_of_its_plan_once_there_is_one(tmp_path):
    plan = tmp_path / "plan.json"
    assert slide_mpx(sample(), plan) == slide_mpx(sample()) == 4000
    plan.write_text(json.dumps({"slide": {"grid": {"shape": [20_000, 30_000]}}}))
    assert slide_mpx(sample(), plan) == 600
    plan.write_text(json.dumps({"slide": None, "error": "not a TIFF"}))
    assert slide_mpx(sample(), plan) == 0
    plan.write_text("{")
    assert slide_mpx(sample(), plan) == 4000


@pytest.mark.parametrize("path", ["data/slides/a.mrxs", "data/slides/a.ome.zarr", "data/slides/plate.zarr/E/8/0"])
def test_a_slide_in_many_files_counts_as_large(path):
    assert slide_mpx(sample(path, size=4096)) == 20_000


def test_pixels_of_files_are_at_most_four_a_byte(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(500_000))
    assert files_mpx([str(tmp_path / "a"), str(tmp_path / "b")]) == 4


@pytest.mark.parametrize(
    ("memory_mb", "expected"), [(64_000, 4000), (4500, 4000), (4000, 3600), (3000, 2700), (1050, 1000), (500, 1000)]
)
def test_a_budget_above_the_memory_is_lowered_with_a_warning(memory_mb, expected):
    budget, line = affordable_mb(4000, Limit(memory_mb, "memory.max"))
    assert budget == expected
    assert bool(line) == (budget < 4000)
    if line:
        assert all(part in line for part in ("4000", str(memory_mb), "memory.max", str(expected)))
