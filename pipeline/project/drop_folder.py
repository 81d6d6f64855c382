"""The drop folder: which slides are segmented now, which wait for the next run, which are refused.

A run looks once, when it begins, and writes what it found to ``results/slides.json``. Its jobs and its report use that
list, whatever is dropped meanwhile. The next run compares with it: slides that did not change keep their batch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, write_json
from pipeline.project.image_files import list_images, parts_of
from pipeline.project.partial_tiff import is_partial
from pipeline.project.sample_ids import folder_of, has_probabilities, name_batch
from pipeline.project.sample_sheet import SheetRow, read_rows
from pipeline.settings.schema import Settings

_COPYING_S = 3600  # a file shorter than its header says counts as damaged, no longer as being copied, after this time


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A slide in the drop folder, and its reference if it has one.

    Attributes
    ----------
    slide : str
        Its path; if it is refused, as printable text.
    version : str
        Bytes and time of the last change; another slide under the same name has another version.
    pixel_size_um, channels
        From the sample sheet.
    batch : str
        The slides that it is predicted with; empty if it is not segmented.
    waits, refused : str
        Why it waits for the next run; why it is not segmented until someone fixes it. Empty for most.
    """

    slide: str
    reference: str | None = None
    version: str = ""
    pixel_size_um: float | None = None
    channels: tuple[int | str, ...] | None = None
    batch: str = ""
    waits: str = ""
    refused: str = ""

    @property
    def size_mb(self) -> float:
        """Size of its files, without those in subfolders; 0 if unknown."""
        size = self.version.partition(" ")[0]
        return int(size) / 1e6 if size.isdecimal() else 0.0

    @property
    def is_ready(self) -> bool:
        """Whether this run segments it."""
        return not self.waits and not self.refused

    @property
    def pixels(self) -> str:
        """What its pixels depend on: the file and its row of the sample sheet."""
        return f"{self.version}, {self.pixel_size_um} um, channels {self.channels}"

    @property
    def row(self) -> SheetRow:
        """What the sample sheet says of its pixels."""
        return SheetRow(pixel_size_um=self.pixel_size_um, channels=self.channels)


Samples = dict[str, Sample]


def find_samples(settings: Settings, *, now_s: float | None = None) -> Samples:
    """Return all slides in the drop folder by sample id, sorted; ``now_s`` is the time since the epoch."""
    now_s = time.time() if now_s is None else now_s
    slides, refused = list_images(Path(settings.slides), follow_links=False)
    references, unusable = list_images(Path(settings.references), follow_links=True)
    rows = read_rows(Path(settings.samples), [*slides, *refused], channels=len(settings.image.channels))
    known = known_samples()
    samples = {name: Sample(slide=str(path), refused=reason) for name, (path, reason) in refused.items()}
    for name, slide in slides.items():
        sample = _look_at(slide, known.get(name), settings.settle_s, now_s)
        if sample is None:
            continue
        if name in unusable:
            sample = replace(sample, refused=f"its reference: {unusable[name].reason}")
        if name in rows:
            sample = replace(sample, pixel_size_um=rows[name].pixel_size_um, channels=rows[name].channels)
        samples[name] = replace(sample, reference=str(references[name])) if name in references else sample
    return assign_batches(dict(sorted(samples.items())), known, rows, probabilities=settings.needs_probabilities)


def assign_batches(
    samples: Samples, known: Mapping[str, Sample], rows: Mapping[str, SheetRow], *, probabilities: bool
) -> Samples:
    """Return the samples with their batches: those of the last run if still valid, new ones for all others.

    Parameters
    ----------
    samples, known : mapping of Sample
        Found now; found by the last run.
    rows : mapping of SheetRow
        The sample sheet.
    probabilities : bool
        Whether predictions must have them.
    """
    batches = {
        name: before.batch
        for name, sample in samples.items()
        if (before := known.get(name)) and before.batch and before.pixels == sample.pixels
        # They may have probabilities that nobody needs
        if has_probabilities(before.batch) >= probabilities
    }
    new: dict[str, dict[str, str]] = defaultdict(dict)
    for name, sample in samples.items():
        if sample.is_ready and name not in batches:
            new[rows.get(name, SheetRow()).batch or folder_of(name)][name] = sample.pixels
    for folder, members in new.items():
        batches |= dict.fromkeys(members, name_batch(folder, members, probabilities=probabilities))
    return {name: replace(sample, batch=batches.get(name, "")) for name, sample in samples.items()}


def samples_of_run(settings: Settings) -> Samples:
    """Return what the current or last run found; without one, what is in the folder now."""
    return known_samples() or find_samples(settings)


def write_samples(samples: Samples, command: str) -> None:
    """Write what a run found, and the command that began it."""
    content = {name: asdict(sample) for name, sample in samples.items()}
    write_json(Path(paths.SLIDES), {"command": command, "samples": content})


def known_samples() -> Samples:
    """Return what the last run found; nothing if there was none or its file cannot be read."""
    try:
        return _read_samples(Path(paths.SLIDES))
    except SlidemillError:
        return {}


def members_of_batch(slides: Path, batch: str) -> list[str]:
    """Return the samples of a batch, from the file of a run (``slides``, JSON).

    Raises
    ------
    SlidemillError
        If the file cannot be read, or has no such batch.
    """
    members = [name for name, sample in _read_samples(slides).items() if sample.batch == batch and sample.is_ready]
    if not members:
        raise SlidemillError(f"{slides}: no slides of batch {batch!r}; run the workflow, which writes this file")
    return members


def command_of_run() -> str:
    """Return the command that began the last run; empty if unknown."""
    try:
        return str(read_json(Path(paths.SLIDES))["command"])
    except (SlidemillError, KeyError):
        return ""


def refuse_for_cluster(samples: Samples) -> Samples:
    """Return the samples; refused are those whose names Snakemake cannot pass to jobs of a cluster.

    It quotes names on command lines as Python does, which a shell understands only if nothing is escaped, and it splits
    lists of names at commas.
    """
    return {name: _for_cluster(name, sample) for name, sample in samples.items()}


def has_changes(now: Mapping[str, Sample], before: Mapping[str, Sample]) -> bool:
    """Return whether a run has something to do: a slide is new, replaced, removed, or refused."""
    changed = {
        name
        for name, sample in now.items()
        if not sample.waits and before.get(name) not in (sample, _for_cluster(name, sample))
    }
    return bool(changed or set(before) - set(now))


def _read_samples(path: Path) -> Samples:
    try:
        return {
            name: Sample(**one | {"channels": None if one["channels"] is None else tuple(one["channels"])})
            for name, one in read_json(path)["samples"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise SlidemillError(f"{path}: not a list of samples of this version; remove it and run again") from error


def _look_at(slide: Path, before: Sample | None, settle_s: float, now_s: float) -> Sample | None:
    """Return what is known of a slide without opening it; None if it has just been removed."""
    try:
        others = slide.iterdir() if slide.is_dir() else parts_of(slide)  # of a folder, only those directly in it
        states = [slide.stat(), *(path.stat() for path in others if path.exists())]
        size, changed_ns = sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
        found = Sample(slide=str(slide), version=f"{size} bytes, {changed_ns} ns")
        if before and before.is_ready and before.version == found.version:
            return found
        # ctime, since programs that copy set the modification time to that of the original
        age_s = now_s - max(state.st_ctime for state in states)
        return replace(found, waits=_why_it_waits(slide, age_s, settle_s))
    except FileNotFoundError:
        return None
    except OSError as error:
        return Sample(slide=str(slide), refused=f"{slide}: cannot be read: {error.strerror}; allow it, or remove it")


def _why_it_waits(slide: Path, age_s: float, settle_s: float) -> str:
    if settle_s == 0 or age_s < -settle_s:  # the clock is wrong
        return ""
    if age_s < settle_s:
        return f"{slide}: changed less than settle_s ({settle_s:g} s) ago; the next run segments it"
    if age_s < _COPYING_S and not slide.is_dir():
        missing = [part.name for part in parts_of(slide) if not part.exists()]
        if missing:
            return f"{slide}: its file {missing[0]} is missing; the next run looks again"
        if is_partial(slide):
            return f"{slide}: shorter than its header says, so still being copied; the next run looks again"
    return ""


def _for_cluster(name: str, sample: Sample) -> Sample:
    written = repr(name)
    can_pass = "," not in name and written[1:-1] == name and (written[0] == "'" or not set(name) & set("$`"))
    if can_pass or sample.refused:
        return sample
    reason = (
        f"{sample.slide}: a name with a comma, white space other than blanks, or an apostrophe together with a quote "
        "or $ cannot be passed to jobs of a cluster; rename it"
    )
    return replace(sample, waits="", refused=reason)
