"""Which training images a network learns from, and which are held back: the last ones, or each fold in turn.

Images of one group (an animal, a patient, a field) are never in both parts. Groups stay in the order of their names, in
which z2 is before z10, so that neighbours are held back together: in a stack of slices, only those at a cut resemble
each other.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from pipeline.base.errors import SlidemillError
from pipeline.project.sample_sheet import read_groups, read_unknown
from pipeline.project.training_pairs import TrainingPair, find_pairs
from pipeline.settings.stage_sections import SplitConfig

Groups = dict[str, list[TrainingPair]]


def find_split(images: Path, labels: Path, config: SplitConfig) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Return the training pairs to learn from and those held back, as :func:`split_pairs` does."""
    return split_pairs(group_pairs(find_pairs(images, labels), Path(config.samples)), config)


def split_pairs(groups: Groups, config: SplitConfig) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Split pairs into those to learn from and those held back, neither empty, in the order of their names.

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
    parts: tuple[list[TrainingPair], list[TrainingPair]] = [], []
    for name, pairs in groups.items():
        parts[name in held_back].extend(pairs)
    training, validation = (sorted(part, key=_natural) for part in parts)
    return training, validation


def group_pairs(pairs: list[TrainingPair], sheet: Path) -> Groups:
    """Return the pairs by group, in the order of their first names.

    Groups are those of the ``sheet`` (CSV with the columns sample and group), which must name every image. Without
    a sheet, the files of one subfolder are a group, and any other file is a group of its own.

    Raises
    ------
    SlidemillError
        If the sheet cannot be read, names a missing image, or leaves one out, which could belong to any group.
    """
    names = sorted(pair.name for pair in pairs)
    for number, name in read_unknown(sheet, names):
        raise SlidemillError(f"{sheet}: line {number}: no training image {name!r}; fix or remove the line")
    group_of = read_groups(sheet, names)
    if group_of and (missing := [name for name in names if name not in group_of]):
        raise SlidemillError(f"{sheet}: no line for the training image {missing[0]!r}; add its group")
    groups: Groups = {}
    for pair in sorted(pairs, key=_natural):
        groups.setdefault(group_of.get(pair.name) or _folder_of(pair.name), []).append(pair)
    return groups


def fold_groups(groups: Groups, folds: int) -> list[list[str]]:
    """Split groups into ``folds`` parts with about the same number of images.

    A part takes the next group as long as that brings it closer to its share of the remaining images.

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
    parts: list[list[str]] = []
    left = list(groups)
    for others in reversed(range(folds)):
        share = _count(groups, left) / (others + 1)
        part = [left.pop(0)]
        while len(left) > others and abs(_count(groups, [*part, left[0]]) - share) <= abs(_count(groups, part) - share):
            part.append(left.pop(0))
        parts.append(part)
    return parts


def _last(groups: Groups, share: float) -> list[str]:
    """Return the last groups with ``share`` of the images together: at least one, but not all."""
    if len(groups) < 2:
        raise SlidemillError(
            f"validation needs at least 2 training images (or subfolders), got {len(groups)}; "
            "add an image, or cut the one into two files"
        )
    left, held_back = list(groups), list[str]()
    while len(left) > 1 and (not held_back or _count(groups, held_back) < round(share * _count(groups, groups))):
        held_back.append(left.pop())
    return held_back


def _natural(pair: TrainingPair) -> tuple[list[str | int], str]:
    """Return a key that sorts names by the numbers in them: text and numbers take turns, so they can be compared."""
    parts = re.split(r"(\d+)", pair.name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], pair.name


def _folder_of(name: str) -> str:
    """Return the folder of an image, or its own name if it is in none."""
    parent = str(PurePosixPath(name).parent)
    return name if parent == "." else parent


def _count(groups: Groups, names: list[str] | Groups) -> int:
    return sum(len(groups[name]) for name in names)
