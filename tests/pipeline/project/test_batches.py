"""A batch is the new slides of one folder; predictions are never used for other slides or other versions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import SlidemillError
from pipeline.project.drop_folder import Sample, assign_batches, members_of_batch, write_samples
from pipeline.project.sample_ids import has_probabilities
from pipeline.project.sample_sheet import SheetRow

NAMES = ["alone", "x/1", "x/2", "x/3", "x/y/1", "1", "x"]
# What lies in the drop folder at each run, by version; whether probabilities are needed; whether the list was lost.
RUNS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(NAMES), st.sampled_from("abc")), st.booleans(), st.booleans()),
    max_size=8,
)


def samples_of(versions, **more):
    return {name: Sample(slide=name, version=version, **more) for name, version in sorted(versions.items())}


def assigned(versions, known=(), rows=(), *, probabilities=False):
    return assign_batches(samples_of(versions), dict(known), dict(rows), probabilities=probabilities)


def batches_of(*inputs, **more):
    return {name: sample.batch for name, sample in assigned(*inputs, **more).items()}


@given(RUNS)
def test_a_batch_always_has_the_same_slides_and_versions(runs):
    formed, known = {}, {}
    for versions, probabilities, is_lost in runs:
        before = {} if is_lost else known
        known = assign_batches(samples_of(versions), before, {}, probabilities=probabilities)
        for batch in {sample.batch for sample in known.values()}:
            members = {(name, sample.version) for name, sample in known.items() if sample.batch == batch}
            fresh = {name for name, _ in members if name not in before or before[name].batch != batch}
            assert members <= formed.setdefault(batch, members if fresh else set())
            assert has_probabilities(batch) >= probabilities
            assert len({name.rpartition("/")[0] or name for name, _ in members}) == 1


@given(RUNS)
def test_an_unchanged_slide_stays_in_its_batch(runs):
    known = {}
    for versions, _, _ in runs:
        before, known = known, assign_batches(samples_of(versions), known, {}, probabilities=False)
        for name in before.keys() & known.keys():
            assert (known[name].batch == before[name].batch) == (known[name].version == before[name].version)


def test_new_slides_of_a_folder_are_one_batch_beside_the_old_one():
    first = batches_of({"x/1": "a", "x/2": "a", "x/y/1": "a", "x": "a", "1": "a"})
    assert len(set(first.values())) == 3
    assert first["x/1"] == first["x/2"] == first["x"]
    known = assigned({"x/1": "a", "x/2": "a"})
    second = batches_of({"x/1": "a", "x/2": "b", "x/3": "a"}, known)
    assert second["x/1"] == known["x/1"].batch
    assert second["x/2"] == second["x/3"] != known["x/2"].batch


def test_the_sheet_can_name_batches_but_a_later_line_moves_no_slide():
    night = {"alone": SheetRow(batch="x"), "1": SheetRow(batch="night")}
    found = batches_of({"alone": "a", "1": "a", "x/1": "a"}, rows=night)
    assert found["alone"] == found["x/1"] != found["1"]
    assert found["1"].startswith("night/")
    known = assigned({"alone": "a"})
    assert batches_of({"alone": "a"}, known, night)["alone"] == known["alone"].batch


def test_other_pixels_of_one_file_are_another_version():
    known = assigned({"x/1": "a", "x/2": "a"})
    for more in ({"pixel_size_um": 0.5}, {"channels": ("DAPI",)}):
        now = samples_of({"x/1": "a"}) | samples_of({"x/2": "a"}, **more)
        found = assign_batches(now, known, {}, probabilities=False)
        assert found["x/1"].batch == known["x/1"].batch
        assert found["x/2"].batch != known["x/2"].batch


def test_probabilities_are_another_batch_that_stays_valid_without_them():
    without = assigned({"alone": "a"})
    asked = assigned({"alone": "a"}, without, probabilities=True)
    assert asked["alone"].batch != without["alone"].batch
    assert assigned({"alone": "a"}, asked) == asked


def test_waiting_and_refused_slides_have_no_batch_and_refused_ones_return_to_theirs():
    held = samples_of({"1": "a"}, waits="still being copied") | samples_of({"x": "a"}, refused="rename it")
    assert {one.batch for one in assign_batches(held, {}, {}, probabilities=False).values()} == {""}
    known = assigned({"x": "a"})
    refused = assign_batches(samples_of({"x": "a"}, refused="its reference"), known, {}, probabilities=False)
    assert assigned({"x": "a"}, refused) == known


def test_the_members_of_a_batch_are_those_of_the_run(in_folder):
    known = assigned({"x/1": "a", "x/2": "a", "alone": "a"})
    write_samples(known, "snakemake")
    slides = in_folder / "results" / "slides.json"
    assert members_of_batch(slides, known["x/1"].batch) == ["x/1", "x/2"]
    with pytest.raises(SlidemillError, match="no slides of batch 'other'; run the workflow"):
        members_of_batch(slides, "other")


@pytest.mark.parametrize("content", ["{", {}, {"samples": {"a": {"slide": "a.tif"}}}, {"samples": {"a": 1}}])
def test_a_list_of_slides_that_cannot_be_read_is_one_line(tmp_path, content):
    slides = tmp_path / "slides.json"
    slides.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SlidemillError, match="slides.json: not"):
        members_of_batch(slides, "x")
