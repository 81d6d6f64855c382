"""Which training images a network learns from, and which are held back from it: the last ones, or each fold in turn.

Images of one group (an animal, a patient, a field) are never on both sides. Groups stay in the order of names, so that
what is held back together are neighbours: in a stack of slices only those at a cut resemble each other.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.project.sample_ids import folder_of
from pipeline.project.sample_sheet import read_groups, read_strangers
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.stages import SplitConfig

Groups = dict[str, list[TrainingPair]]


def split_pairs(groups: Groups, config: SplitConfig) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Part the training pairs into those to learn from and those held back, both sorted by name, neither empty.

    Raises
    ------
    SlidemillError
        If there are fewer groups than folds (two without folds).
    """
    if config.validation is not None:
        held_back = _last(groups, config.validation)
    else:
        assert config.folds is not None
        assert config.fold is not None
        held_back = fold_groups(groups, config.folds)[config.fold - 1]
    sides: tuple[list[TrainingPair], list[TrainingPair]] = [], []
    for name, pairs in groups.items():
        sides[name in held_back].extend(pairs)
    training, validation = (sorted(side, key=lambda pair: pair.name) for side in sides)
    return training, validation


def group_pairs(pairs: list[TrainingPair], sheet: Path) -> Groups:
    """Return the pairs by group, in the order of their first names.

    Groups are those of the ``sheet`` (CSV with the columns sample and group), which then names every image; without
    a sheet, files of one subfolder are a group, and a file beside them is one of its own.

    Raises
    ------
    SlidemillError
        If the sheet cannot be read, names an image that is not there, or leaves one out: it could be of a group that
        is on the other side.
    """
    names = sorted(pair.name for pair in pairs)
    for number, name in read_strangers(sheet, names):
        raise SlidemillError(f"{sheet}: line {number}: no training image {name!r}; mend or remove the line")
    stated = read_groups(sheet, names)
    if stated and (missing := [name for name in names if name not in stated]):
        raise SlidemillError(f"{sheet}: no line for the training image {missing[0]!r}; add its group")
    groups: Groups = {}
    for pair in sorted(pairs, key=lambda pair: pair.name):
        groups.setdefault(stated.get(pair.name) or folder_of(pair.name), []).append(pair)
    return groups


def fold_groups(groups: Groups, folds: int) -> list[list[str]]:
    """Part groups into ``folds`` runs of about as many images each; every group is in exactly one.

    A run takes the next group as long as that brings it closer to its share of the images that are left.

    Raises
    ------
    SlidemillError
        If there are fewer groups than folds.
    """
    if len(groups) < folds:
        raise SlidemillError(
            f"folds: {folds} needs as many groups of training images, got {len(groups)} ({', '.join(groups)}); "
            "lower it, or add images (each file, each subfolder or each group of training.samples is a group)"
        )
    runs: list[list[str]] = []
    left = list(groups)
    for others in reversed(range(folds)):
        share = _count(groups, left) / (others + 1)
        run = [left.pop(0)]
        while len(left) > others and abs(_count(groups, [*run, left[0]]) - share) <= abs(_count(groups, run) - share):
            run.append(left.pop(0))
        runs.append(run)
    return runs


def _last(groups: Groups, share: float) -> list[str]:
    """Return the last groups that have ``share`` of the images together, at least one; and leave at least one."""
    if len(groups) < 2:
        raise SlidemillError(
            f"validation needs at least 2 training images (or subfolders), got {len(groups)}; "
            "add an image, or cut the one into two files"
        )
    left, held_back = list(groups), list[str]()
    while len(left) > 1 and (not held_back or _count(groups, held_back) < round(share * _count(groups, groups))):
        held_back.append(left.pop())
    return held_back


def _count(groups: Groups, names: list[str] | Groups) -> int:
    return sum(len(groups[name]) for name in names)
