"""Every image is held back exactly once, and never beside one of its group."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import SlidemillError
from pipeline.project.splits import fold_groups, group_pairs, split_pairs
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.stage_sections import SplitConfig

NO_SHEET = Path("none.csv")
names_in_folders = st.lists(st.from_regex(r"[a-h]/[a-z]{1,2}", fullmatch=True), min_size=1, max_size=60, unique=True)


def pairs_named(*names):
    return [TrainingPair(name=name, image=Path(name), labels=Path(name)) for name in names]


def names_of(pairs):
    return [pair.name for pair in pairs]


def last(share):
    return SplitConfig(samples="", validation=share)


def fold(number, folds):
    return SplitConfig(samples="", folds=folds, fold=number)


def sheet_of(folder, **groups):
    sheet = folder / "training.csv"
    sheet.write_text("sample,group\n" + "".join(f"{name},{group}\n" for name, group in groups.items()))
    return sheet


def test_the_last_files_are_held_back():
    training, held_back = split_pairs(group_pairs(pairs_named("00", "01", "02", "03", "04"), NO_SHEET), last(0.4))
    assert (names_of(training), names_of(held_back)) == (["00", "01", "02"], ["03", "04"])


def test_slices_are_held_back_in_the_order_of_their_numbers():
    """Only the slice before those held back is a neighbour that was learned from; folds likewise."""
    names = [f"z{number}" for number in range(1, 21)]
    groups = group_pairs(pairs_named(*names), NO_SHEET)
    training, held_back = split_pairs(groups, last(0.25))
    assert (names_of(training), names_of(held_back)) == (names[:15], names[15:])
    assert fold_groups(groups, 4) == [names[start : start + 5] for start in range(0, 20, 5)]


@given(numbers=st.lists(st.integers(0, 10**12), min_size=2, unique=True))
def test_the_order_of_names_is_that_of_the_numbers_in_them(numbers):
    names = [f"animal {number}/slice" for number in numbers]
    groups = group_pairs(pairs_named(*names), NO_SHEET)
    assert list(groups) == [f"animal {number}" for number in sorted(numbers)]


def test_names_of_any_form_have_an_order():
    groups = group_pairs(pairs_named("1", "a", "01", "a1b", "a1", "", "2²", "a1b2/3"), NO_SHEET)
    assert list(groups) == ["", "01", "1", "2²", "a", "a1", "a1b", "a1b2"]


def test_one_file_cannot_be_split():
    with pytest.raises(SlidemillError, match="at least 2 training images .or subfolders., got 1"):
        split_pairs(group_pairs(pairs_named("field/a", "field/b"), NO_SHEET), last(0.5))


@given(names=names_in_folders, share=st.floats(0.01, 0.99))
def test_a_split_parts_whole_folders_and_loses_nothing(names, share):
    groups = group_pairs(pairs_named(*names), NO_SHEET)
    if len(groups) < 2:
        return
    training, held_back = split_pairs(groups, last(share))
    assert training
    assert held_back
    assert names_of(training + held_back) == sorted(names)
    assert not {pair.name[0] for pair in training} & {pair.name[0] for pair in held_back}


@given(names=names_in_folders, folds=st.integers(2, 8), order=st.randoms(use_true_random=False))
def test_every_image_is_held_back_once_and_never_beside_its_group(names, folds, order):
    groups = group_pairs(pairs_named(*names), NO_SHEET)
    if len(groups) < folds:
        return
    shuffled = list(names)
    order.shuffle(shuffled)
    assert fold_groups(group_pairs(pairs_named(*shuffled), NO_SHEET), folds) == fold_groups(groups, folds)
    parts = [split_pairs(groups, fold(number + 1, folds)) for number in range(folds)]
    assert sorted(name for _, held_back in parts for name in names_of(held_back)) == sorted(names)
    for training, held_back in parts:
        assert training
        assert held_back
        assert sorted(names_of(training + held_back)) == sorted(names)
        assert not {pair.name[0] for pair in training} & {pair.name[0] for pair in held_back}


@given(count=st.integers(2, 60), folds=st.integers(2, 10))
def test_single_images_make_folds_of_one_size_and_of_neighbours(count, folds):
    if count < folds:
        return
    names = [f"{number:02}" for number in range(count)]
    found = fold_groups(group_pairs(pairs_named(*names), NO_SHEET), folds)
    assert {len(part) for part in found} <= {count // folds, -(-count // folds)}
    assert [name for part in found for name in part] == names


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=20), folds=st.integers(2, 8))
def test_no_fold_is_larger_than_its_share_by_more_than_two_groups(sizes, folds):
    if len(sizes) < folds:
        return
    names = [f"{group:02}/{number}" for group, size in enumerate(sizes) for number in range(size)]
    groups = group_pairs(pairs_named(*names), NO_SHEET)
    counts = [sum(len(groups[name]) for name in part) for part in fold_groups(groups, folds)]
    assert max(counts) <= sum(sizes) / folds + 2 * max(sizes)


def test_folds_by_hand():
    groups = group_pairs(pairs_named("a/1", "a/2", "a/3", "b/1", "c/1", "d/1", "d/2"), NO_SHEET)
    assert fold_groups(groups, 2) == [["a", "b"], ["c", "d"]]  # 4 and 3 images
    assert fold_groups(groups, 3) == [["a"], ["b", "c"], ["d"]]


def test_the_sheet_says_which_images_belong_together(tmp_path):
    pairs = pairs_named("1", "2", "3", "4")
    sheet = sheet_of(tmp_path, **{"1": "mouse", "2": "rat", "3": "mouse", "4": "rat"})
    groups = group_pairs(pairs, sheet)
    assert {name: names_of(members) for name, members in groups.items()} == {"mouse": ["1", "3"], "rat": ["2", "4"]}
    training, held_back = split_pairs(groups, fold(1, 2))
    assert (names_of(training), names_of(held_back)) == (["2", "4"], ["1", "3"])
    assert names_of(split_pairs(groups, last(0.1))[1]) == ["2", "4"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"1": "mouse"}, "training.csv: no line for the training image '2'; add its group"),
        ({"1": "mouse", "2": "rat", "3": "rat"}, "line 4: no training image '3'; fix or remove the line"),
        ({"1": "mouse", "2": ""}, "line 3 has no group"),
    ],
)
def test_a_sheet_that_does_not_fit_is_one_line(tmp_path, groups, message):
    with pytest.raises(SlidemillError, match=message):
        group_pairs(pairs_named("1", "2"), sheet_of(tmp_path, **groups))


@pytest.mark.parametrize(
    "wrong", [{}, {"validation": 0.2, "folds": 2, "fold": 1}, {"folds": 2}, {"folds": 2, "fold": 3}, {"fold": 1}]
)
def test_one_part_is_held_back(wrong):
    with pytest.raises(ValueError, match="give validation, or folds and fold|fold must be from 1 to 2, got 3"):
        SplitConfig(samples="", **wrong)


def test_more_folds_than_groups_are_one_line():
    groups = group_pairs(pairs_named("a/1", "a/2", "b/1"), NO_SHEET)
    with pytest.raises(SlidemillError, match=r"folds: 3 needs as many groups of training images, got 2 \(a, b\)"):
        split_pairs(groups, fold(1, 3))
