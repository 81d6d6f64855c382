"""Batches: the samples that one job works through.

A batch is what came together in a folder, cut at a number of samples and at a size in bytes. It only decides what
shares a process: no result depends on it. Its name is that of the folder and a number, such as ``plate1/0003``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from pipeline.project.sample_sheet import SheetRow
from pipeline.settings.schema import BatchConfig

Sizes = Mapping[str, float]


def assign_batches(
    sizes_mb: Sizes, known: Mapping[str, str], rows: Mapping[str, SheetRow], limits: BatchConfig
) -> dict[str, str]:
    """Return the batch of every sample: the one that it had, a new one for all others.

    Parameters
    ----------
    sizes_mb : mapping of float
        Sizes of the slides in MB, by sample.
    known : mapping of str
        Batches of the last run, by sample; also those of samples that are no longer there.
    rows : mapping of SheetRow
        The sample sheet. Its batch replaces the folder of a sample.
    limits : BatchConfig
        Most samples and bytes of a batch; a larger slide is its own.
    """
    new: dict[str, list[str]] = defaultdict(list)
    for name in sizes_mb:
        if name not in known:
            new[rows.get(name, SheetRow()).batch or _folder_of(name)].append(name)
    batches = {name: known[name] for name in sizes_mb if name in known}
    highest = _highest_numbers(known.values())
    for folder, names in new.items():
        for number, members in enumerate(_cut(sorted(names), sizes_mb, limits), start=highest[folder] + 1):
            batches |= dict.fromkeys(members, f"{folder}/{number:04d}" if folder else f"{number:04d}")
    return batches


def _folder_of(sample: str) -> str:
    parent = str(PurePosixPath(sample).parent)
    return "" if parent == "." else parent


def _highest_numbers(batches: Iterable[str]) -> dict[str, int]:
    """Return the highest number of a batch by folder, 0 for other folders."""
    highest: dict[str, int] = defaultdict(int)
    for batch in set(batches):
        folder, _, number = batch.rpartition("/")
        if number.isdecimal():
            highest[folder] = max(highest[folder], int(number))
    return highest


def _cut(names: list[str], sizes_mb: Sizes, limits: BatchConfig) -> Iterator[list[str]]:
    """Yield the members of each new batch of a folder, in the order of names."""
    members: list[str] = []
    total_mb = 0.0
    for name in names:
        if members and (len(members) == limits.samples or total_mb + sizes_mb[name] > limits.size_mb):
            yield members
            members, total_mb = [], 0.0
        members.append(name)
        total_mb += sizes_mb[name]
    if members:
        yield members
