"""A batch is what came together in a folder, within its limits; a sample stays in its batch."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import SlidemillError
from pipeline.project.batches import assign_batches
from pipeline.project.drop.drop_folder import Sample, members_of_batch, write_samples
from pipeline.project.sample_sheet import SheetRow
from pipeline.settings.schema import BatchConfig

NAMES = ["alone", "x/1", "x/2", "x/3", "x/y/1", "1", "x"]
# What lies in the drop folder at each run, with the sizes of the slides in MB.
RUNS = st.lists(st.dictionaries(st.sampled_from(NAMES), st.floats(0, 10)), max_size=8)


def folder_of(name):
    return name.rpartition("/")[0]


@given(runs=RUNS, samples=st.integers(1, 3), size_mb=st.floats(0.1, 20))
def test_batches_keep_their_members_and_their_limits(runs, samples, size_mb):
    known = {}
    limits = BatchConfig(samples=samples, size_mb=size_mb)
    for sizes in runs:
        found = assign_batches(sizes, known, {}, limits)
        assert found.keys() == sizes.keys()
        assert all(found[name] == known[name] for name in found.keys() & known.keys())
        for batch in set(found.values()) - set(known.values()):
            members = [name for name in found if found[name] == batch]
            assert len(members) <= samples
            assert len(members) == 1 or sum(sizes[name] for name in members) <= size_mb
            assert {folder_of(name) for name in members} == {folder_of(batch)}
        known |= found


def test_names_are_the_folder_and_the_next_number():
    sizes = {f"plate/{number}": 1.0 for number in range(5)} | {"alone": 1.0}
    first = assign_batches(sizes, {}, {}, BatchConfig(samples=2))
    assert list(first.values()) == ["plate/0001", "plate/0001", "plate/0002", "plate/0002", "plate/0003", "0001"]
    later = assign_batches(sizes | {"plate/new": 1.0}, first, {}, BatchConfig(samples=2))
    assert later == first | {"plate/new": "plate/0004"}


def test_a_large_slide_is_a_batch_of_its_own():
    sizes = {"a": 1.0, "b": 3000.0, "c": 1.0, "d": 1.0}
    assert list(assign_batches(sizes, {}, {}, BatchConfig()).values()) == ["0001", "0002", "0003", "0003"]


def test_the_sheet_can_name_batches_but_a_later_line_moves_no_slide():
    night = {"alone": SheetRow(batch="x"), "1": SheetRow(batch="night")}
    found = assign_batches(dict.fromkeys(("alone", "1", "x/1"), 1.0), {}, night, BatchConfig())
    assert found == {"alone": "x/0001", "x/1": "x/0001", "1": "night/0001"}
    assert assign_batches({"alone": 1.0}, {"alone": "0001"}, night, BatchConfig()) == {"alone": "0001"}


def test_the_members_of_a_batch_are_those_of_the_run_that_are_ready(in_folder):
    samples = {
        "x/1": Sample(slide="x/1.tif", batch="x/0001"),
        "x/2": Sample(slide="x/2.tif", batch="x/0001", refused="rename it"),
        "alone": Sample(slide="alone.tif", batch="0001"),
    }
    write_samples(samples, "snakemake", "")
    slides = in_folder / "results" / "slides.json"
    assert list(members_of_batch(slides, "x/0001")) == ["x/1"]
    with pytest.raises(SlidemillError, match="no slides of batch 'other'; run the workflow"):
        members_of_batch(slides, "other")


@pytest.mark.parametrize("content", ["{", {}, {"samples": {"a": {"slide": "a.tif"}}}, {"samples": {"a": 1}}])
def test_a_list_of_slides_that_cannot_be_read_is_one_line(tmp_path, content):
    slides = tmp_path / "slides.json"
    slides.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SlidemillError, match="slides.json: not"):
        members_of_batch(slides, "x")
