"""The drop folder: which slides are segmented now, which wait for the next run, which are refused.

A run looks once, when it begins, and writes what it found to ``results/slides.json``. Its jobs and its report use that
list, whatever is dropped meanwhile. The next run compares with it: slides that did not change keep their batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, state_of, state_text, stats_of, write_json
from pipeline.project.batches import assign_batches
from pipeline.project.drop.image_files import ANNOTATION_SUFFIXES, SUFFIXES, Refused, list_images, parts_of
from pipeline.project.drop.names import matched
from pipeline.project.drop.partial_tiff import is_partial
from pipeline.project.sample_sheet import SheetRow, read_rows
from pipeline.settings.schema import Settings

log = logging.getLogger(__name__)

_COPYING_S = 3600  # a file shorter than its header says counts as damaged, no longer as being copied, after this time


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A slide in the drop folder, and its reference if it has one.

    Attributes
    ----------
    slide : str
        Its path; if it is refused, as printable text.
    regions : str or None
        The path of the outlines of its regions.
    version, reference_version, regions_version : str
        Bytes and time of the last change of these files; a file that replaces another has another version.
    is_cut : bool
        Whether it is segmented in its regions only.
    pixel_size_um, channels
        From the sample sheet.
    batch : str
        The slides that it shares its jobs with; empty if it is not segmented.
    waits, refused : str
        Why it waits for the next run; why it is not segmented until someone fixes it. Empty for most.
    just_changed : bool
        Whether it waits since it changed just now.
    """

    slide: str
    reference: str | None = None
    regions: str | None = None
    version: str = ""
    reference_version: str = ""
    regions_version: str = ""
    is_cut: bool = False
    pixel_size_um: float | None = None
    channels: tuple[int | str, ...] | None = None
    batch: str = ""
    waits: str = ""
    refused: str = ""
    just_changed: bool = False

    @property
    def size_mb(self) -> float:
        """Size of its files; 0 if unknown."""
        size = self.version.partition(" ")[0]
        return int(size) / 1e6 if size.isdecimal() else 0.0

    @property
    def is_ready(self) -> bool:
        """Whether this run segments it."""
        return not self.waits and not self.refused

    @property
    def pixels(self) -> str:
        """What its pixels and their size depend on: the file and its row of the sample sheet."""
        return f"{self.file}, {self.pixel_size_um} um"

    @property
    def file(self) -> str:
        """The file and the channels that are read of it."""
        return f"{self.slide}, {self.version}, channels {self.channels}"

    @property
    def truth(self) -> str:
        """What its true labels depend on; empty without a reference."""
        return f"{self.reference}, {self.reference_version}" if self.reference else ""

    @property
    def outlines(self) -> str:
        """What its regions depend on; empty without such a file."""
        return f"{self.regions}, {self.regions_version}" if self.regions else ""

    @property
    def row(self) -> SheetRow:
        """What the sample sheet says of its pixels."""
        return SheetRow(pixel_size_um=self.pixel_size_um, channels=self.channels)


Samples = dict[str, Sample]


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """What a run wrote into ``results/slides.json`` when it began; nothing if there was none.

    Attributes
    ----------
    samples : dict of Sample
        All slides that it found.
    batches : dict of str
        The batch of each sample, also of those that are no longer there.
    command : str
        What began it.
    report : str
        The fingerprint of its report.
    lost : frozenset of str
        The ledgers of its jobs that did not end.
    stopped : bool
        Whether the user ended it (Ctrl-C).
    """

    samples: Samples = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    command: str = ""
    report: str = ""
    lost: frozenset[str] = frozenset()
    stopped: bool = False


def find_samples(settings: Settings, *, now_s: float | None = None) -> Samples:
    """Return all slides in the drop folder by sample id, sorted; ``now_s`` is the time since the epoch."""
    now_s = time.time() if now_s is None else now_s
    slides, refused = list_images(Path(settings.slides), follow_links=False)
    kinds = {
        "reference": _beside(slides, settings.references, SUFFIXES + ANNOTATION_SUFFIXES),
        "regions": _beside(slides, settings.regions.folder, ANNOTATION_SUFFIXES),
    }
    rows = read_rows(Path(settings.samples), [*slides, *refused], channels=len(settings.image.channels))
    last = last_run()
    samples = {name: Sample(slide=str(path), refused=reason) for name, (path, reason) in refused.items()}
    for name, slide in slides.items():
        sample = _look_at(slide, last.samples.get(name), settings.settle_s, now_s)
        if sample is None:
            continue
        if name in rows:
            sample = replace(sample, pixel_size_um=rows[name].pixel_size_um, channels=rows[name].channels)
        for kind, (usable, unusable) in kinds.items():
            if name in unusable:
                sample = replace(sample, refused=f"its {kind}: {unusable[name][1].reason}")
            if name in usable:
                _, path = usable[name]
                found: dict[str, Any] = {kind: str(path), f"{kind}_version": state_of(path, *parts_of(path))}
                sample = replace(sample, **found)
        is_cut = sample.regions is not None and settings.regions.compute == "inside"
        samples[name] = replace(sample, is_cut=is_cut)
    sizes_mb = {name: sample.size_mb for name, sample in samples.items() if sample.is_ready or name in last.batches}
    batches = assign_batches(sizes_mb, last.batches, rows, settings.batches)
    return {name: replace(sample, batch=batches.get(name, "")) for name, sample in sorted(samples.items())}


def _beside(
    slides: Iterable[str], folder: str, suffixes: tuple[str, ...]
) -> tuple[dict[str, tuple[str, Path]], dict[str, tuple[str, Refused]]]:
    """Return the files of a folder that belong to slides, by sample, and those that cannot be used."""
    found, refused = list_images(Path(folder), suffixes, follow_links=True)
    return matched(slides, found), matched(slides, refused)


def settle(settings: Settings, samples: Samples) -> Samples:
    """Return the samples; if all of them wait because they changed just now, wait until one is ready.

    A first run that starts right after its slides were copied would otherwise do nothing.
    """
    while samples and all(one.just_changed for one in samples.values()):
        log.warning("all slides changed less than settle_s (%g s) ago; waiting for them", settings.settle_s)
        time.sleep(settings.settle_s)
        samples = find_samples(settings)
    return samples


def write_samples(
    samples: Samples, command: str, report: str, lost: Iterable[str] = (), *, stopped: bool = False
) -> None:
    """Write what a run found, see :class:`LastRun`.

    The batches of slides that are no longer there are kept, since a folder may come back.
    """
    gone = {name: batch for name, batch in last_run().batches.items() if name not in samples}
    content = {name: vars(sample) for name, sample in samples.items()}
    about = {"command": command, "run": report, "lost": sorted(lost), "stopped": stopped}
    write_json(Path(paths.SLIDES), about | {"samples": content, "gone": gone})


def last_run() -> LastRun:
    """Return what the last run wrote down; if that cannot be read, only the batches, which ledgers have too."""
    try:
        content = read_json(Path(paths.SLIDES))
        samples = {name: _sample(one) for name, one in content["samples"].items()}
        batches = content["gone"] | {name: sample.batch for name, sample in samples.items() if sample.batch}
        about = {"command": content["command"], "report": content["run"], "lost": frozenset(content["lost"])}
        about["stopped"] = content["stopped"]
        return LastRun(samples=samples, batches=batches, **about)
    except (SlidemillError, KeyError, TypeError, AttributeError):
        return LastRun(batches=_batches_of_ledgers())


def _sample(content: dict[str, Any]) -> Sample:
    return Sample(**content | {"channels": None if content["channels"] is None else tuple(content["channels"])})


def _batches_of_ledgers() -> dict[str, str]:
    """Return the batch of every sample that was given to the first stage."""
    batches: dict[str, str] = {}
    for path in Path(paths.LEDGERS, "tile").rglob("*.json"):
        with suppress(SlidemillError, KeyError, TypeError):
            ledger = read_json(path)
            batches |= dict.fromkeys(ledger["samples"], ledger["batch"])
    return batches


def members_of_batch(slides: Path, batch: str) -> Samples:
    """Return the samples of a batch, from the file of a run (``slides``, JSON).

    Raises
    ------
    SlidemillError
        If the file cannot be read, or has no such batch.
    """
    try:
        found = {name: one for name, one in read_json(slides)["samples"].items() if one["batch"] == batch}
        members = {name: sample for name, one in found.items() if (sample := _sample(one)).is_ready}
    except (KeyError, TypeError, AttributeError) as error:
        raise SlidemillError(f"{slides}: not a list of samples of this version; remove it and run again") from error
    if not members:
        raise SlidemillError(f"{slides}: no slides of batch {batch!r}; run the workflow, which writes this file")
    return members


def refuse_for_cluster(samples: Samples) -> Samples:
    """Return the samples; refused are those whose batch has a name that Snakemake cannot pass to jobs of a cluster.

    It quotes names on command lines as Python does, which a shell understands only if nothing is escaped, and it splits
    lists of names at commas.
    """
    return {name: _for_cluster(sample) for name, sample in samples.items()}


def has_changes(now: Mapping[str, Sample], before: Mapping[str, Sample]) -> bool:
    """Return whether a run has something to do: a slide is new, replaced, removed, or refused."""
    changed = {
        name
        for name, sample in now.items()
        if not sample.waits and before.get(name) not in (sample, _for_cluster(sample))
    }
    return bool(changed or set(before) - set(now))


def _look_at(slide: Path, before: Sample | None, settle_s: float, now_s: float) -> Sample | None:
    """Return what is known of a slide without opening it; None if it has just been removed."""
    try:
        version, changed_s = _version_of(slide)
        found = Sample(slide=str(slide), version=version)
        if before and before.is_ready and before.version == version:
            return found
        age_s = now_s - changed_s
        if -settle_s <= age_s < settle_s:  # if it is negative, the clock is wrong
            reason = f"{slide}: changed less than settle_s ({settle_s:g} s) ago; the next run segments it"
            return replace(found, waits=reason, just_changed=True)
        return replace(found, waits=_why_it_waits(slide, age_s) if settle_s else "")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Sample(slide=str(slide), refused=f"{slide}: cannot be read: {error.strerror}; allow it, or remove it")


def _version_of(slide: Path) -> tuple[str, float]:
    """Return the version of a slide, and when any of its files changed last (time since the epoch).

    A folder is looked at to the bottom. Times of change are ctimes, since programs that copy set the modification time
    to that of the original.
    """
    stats = stats_of(slide, *parts_of(slide))
    if not stats:
        raise FileNotFoundError(slide)
    return state_text(stats), max(stat.st_ctime for stat in stats)


def _why_it_waits(slide: Path, age_s: float) -> str:
    """Return why a slide waits that was changed some time ago, but within the last hour."""
    if 0 <= age_s < _COPYING_S and not slide.is_dir():
        parts = parts_of(slide)
        if missing := [part.name for part in parts if not part.exists()]:
            return f"{slide}: its file {missing[0]} is missing; the next run looks again"
        if cut := [part.name for part in (slide, *parts) if part.is_file() and is_partial(part)]:
            return f"{slide}: {cut[0]} is shorter than its header says, so still being copied; the next run looks again"
    return ""


def _for_cluster(sample: Sample) -> Sample:
    written = repr(sample.batch)
    is_quoted = written[1:-1] == sample.batch and (written[0] == "'" or not set(sample.batch) & set("$`"))
    if ("," not in sample.batch and is_quoted) or sample.refused:
        return sample
    reason = (
        f"{sample.slide}: a folder whose name has a comma, white space other than blanks, or an apostrophe together "
        "with a quote or $ cannot be passed to jobs of a cluster; rename it"
    )
    return replace(sample, waits="", refused=reason)
