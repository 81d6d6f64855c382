"""Batches and pairs follow from names alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SlidemillError
from pipeline.project import TrainingPair, batch_of, find_pairs, split_pairs

from ..slide_files import touch


def pairs_named(*names):
    return [TrainingPair(name=name, image=Path(name), labels=Path(name)) for name in names]


def test_a_slide_alone_is_a_batch_and_a_folder_is_one():
    assert [batch_of(sample) for sample in ("a", "plate/a", "plate/deep/a")] == ["a", "plate", "plate/deep"]


def test_pairs_share_their_relative_name(tmp_path):
    touch(tmp_path, "images/field/a.tif", "images/b.png", "labels/field/a.png", "labels/b.tif", "labels/unused.tif")
    assert [pair.name for pair in find_pairs(tmp_path / "images", tmp_path / "labels")] == ["b", "field/a"]


def test_an_image_without_labels_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(SlidemillError, match="no training images in .*images .suffixes"):
        find_pairs(tmp_path / "images", tmp_path / "labels")
    touch(tmp_path, "images/a.tif")
    with pytest.raises(SlidemillError, match=r"a.tif: no label image a.tif or .png in .*labels"):
        find_pairs(tmp_path / "images", tmp_path / "labels")


def test_the_last_files_are_held_back():
    training, held_back = split_pairs(pairs_named("00", "01", "02", "03", "04"), 0.4)
    assert ([pair.name for pair in training], [pair.name for pair in held_back]) == (["00", "01", "02"], ["03", "04"])


def test_one_file_cannot_be_split():
    with pytest.raises(SlidemillError, match="at least 2 training images .or subfolders., got 1"):
        split_pairs(pairs_named("field/a", "field/b"), 0.5)


@given(
    names=st.lists(st.from_regex(r"[a-c]/[a-z]{1,3}", fullmatch=True), min_size=2, unique=True),
    share=st.floats(0.01, 0.99),
)
def test_a_split_parts_whole_folders_and_loses_nothing(names, share):
    pairs = pairs_named(*sorted(names))
    if len({name[0] for name in names}) < 2:
        return
    training, held_back = split_pairs(pairs, share)
    assert training
    assert held_back
    assert training + held_back == pairs
    assert not {pair.name[0] for pair in training} & {pair.name[0] for pair in held_back}
