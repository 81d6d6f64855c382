"""Files that a run makes no use of, each kind in one line: no format that it reads, or of a slide that is not there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from pipeline.project.drop.drop_folder import Samples
from pipeline.project.drop.image_files import (
    ANNOTATION_SUFFIXES,
    DICOM,
    SUFFIXES,
    TO_CONVERT,
    is_dicom_folder,
    list_images,
    parts_of,
    printable,
    sample_id,
    visible_files,
)
from pipeline.project.drop.names import matched, nearest_to
from pipeline.settings.schema import Settings

_MOST_NAMES = 3
_UNFINISHED = {".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp"}


def unused_files(settings: Settings, samples: Samples, training_images: Collection[str]) -> list[str]:
    """Return a line for each kind of file in the folders of slides, references, regions and labels that nothing uses.

    Parameters
    ----------
    samples : Samples
        All slides of the drop folder, also those that wait or are refused.
    training_images : collection of str
        Names of the training images; empty if nothing is trained.
    """
    lines = list(_no_slides(Path(settings.slides), samples))
    lines += _without_partner(Path(settings.references), samples, "references", "slide")
    lines += _no_outlines(Path(settings.regions.folder))
    lines += _without_partner(Path(settings.regions.folder), samples, "files of regions", "slide", ANNOTATION_SUFFIXES)
    if training_images:
        lines += _without_partner(Path(settings.training.labels), training_images, "label images", "training image")
    return lines


def _no_slides(folder: Path, samples: Samples) -> Iterator[str]:
    files = visible_files(folder, "", follow_links=False)
    known = (*SUFFIXES, DICOM, *TO_CONVERT)
    names = [name for name, _, reason in files if not reason and sample_id(name, known) is None]
    if names:
        parts = {part for sample in samples.values() for part in parts_of(Path(sample.slide))}
        names = [name for name in names if not _is_of_a_slide(folder / name, parts)]
    yield from _by_suffix(folder, names, "no format of slides")


def _is_of_a_slide(path: Path, parts: set[Path]) -> bool:
    """Return whether a path is a part of a slide, lies in one, or is a DICOM slide."""
    return path in parts or not parts.isdisjoint(path.parents) or is_dicom_folder(path)


def _no_outlines(folder: Path) -> Iterator[str]:
    files = visible_files(folder, "", follow_links=True)
    names = [name for name, _, reason in files if not reason and sample_id(name, ANNOTATION_SUFFIXES) is None]
    yield from _by_suffix(folder, names, f"no outlines ({', '.join(ANNOTATION_SUFFIXES)})")


def _by_suffix(folder: Path, names: list[str], why: str) -> Iterator[str]:
    """Yield a line for the files of each suffix."""
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_suffix[PurePosixPath(name).suffix.lower()].append(name)
    for suffix, alike in sorted(by_suffix.items()):
        reason = "not downloaded completely" if suffix in _UNFINISHED else why
        kind = f"*{suffix}" if suffix else "without suffix"
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        yield printable(f"{folder / min(alike)}{more} ({kind}): not used: {reason}")


def _without_partner(
    folder: Path,
    names: Collection[str],
    what: str,
    partner: str,
    suffixes: tuple[str, ...] = SUFFIXES + ANNOTATION_SUFFIXES,
) -> Iterator[str]:
    """Yield a line for references, regions or labels that belong to no image."""
    found, _ = list_images(folder, suffixes, follow_links=True)
    matches = matched(names, found)
    used = {own for own, _ in matches.values()}
    left = [name for name in found if name not in used]
    for name in left[:_MOST_NAMES]:
        near = nearest_to(name, set(names) - matches.keys())
        yield printable(f"{found[name]}: not used: there is no {partner} {name!r}{near}")
    if len(left) > _MOST_NAMES:
        yield f"{folder}: {len(left) - _MOST_NAMES} more {what} are not used"
