"""What lies in the drop folder: which slides are segmented now, which wait for the next run, which are refused.

A run takes stock once, when it begins, and writes what it found to ``results/slides.json``. Its jobs and its report go
by that, whatever is dropped meanwhile; the next run knows from it what it has seen before, and which slides came
together: they stay a batch as long as they stay as they are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, write_json
from pipeline.project.image_files import list_images, parts_of
from pipeline.project.partial_tiff import is_partial
from pipeline.project.sample_ids import folder_of, has_probabilities, name_batch
from pipeline.project.sample_sheet import NOTHING, Stated, read_stated
from pipeline.settings.schema import Settings

SLIDES = Path("results/slides.json")
_COPYING_S = 3600  # a file that is shorter than its header says is taken for a damaged one after so long


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A slide in the drop folder, and its reference, if it has one.

    Attributes
    ----------
    slide : str
        Its path. Of a refused one as it can be shown.
    reference : str or None
    version : str
        What tells it from the slide that lay there before: bytes, and time of the last change.
    pixel_size_um, channels
        What the sample sheet states of it.
    batch : str
        The slides that it is predicted with; empty where it is not segmented.
    waits, refused : str
        Why it waits for the next run; why it is not segmented before someone mends it. Empty for most.
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
        """Size of its files, from its version; of a folder only what lies directly in it. 0 where it is not known."""
        size = self.version.partition(" ")[0]
        return int(size) / 1e6 if size.isdecimal() else 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it is segmented in this run."""
        return not self.waits and not self.refused

    @property
    def pixels(self) -> str:
        """What decides its pixels: the file, and what the sample sheet says of it."""
        return f"{self.version}, {self.pixel_size_um} um, channels {self.channels}"

    @property
    def stated(self) -> Stated:
        """What the sample sheet says of its pixels."""
        return Stated(pixel_size_um=self.pixel_size_um, channels=self.channels)


Samples = dict[str, Sample]


def take_stock(settings: Settings, *, now_s: float | None = None) -> Samples:
    """Return all slides in the drop folder by sample id, sorted.

    Parameters
    ----------
    settings : Settings
    now_s : float or None
        Time since the epoch; None: that of the clock.
    """
    now_s = time.time() if now_s is None else now_s
    slides, refused = list_images(Path(settings.slides), follow_links=False)
    references, unusable = list_images(Path(settings.references), follow_links=True)
    stated = read_stated(Path(settings.samples), [*slides, *refused], channels=len(settings.image.channels))
    known = known_samples()
    stock = {name: Sample(slide=str(path), refused=reason) for name, (path, reason) in refused.items()}
    for name, slide in slides.items():
        found = _look(slide, known.get(name), settings.settle_s, now_s)
        if found is None:
            continue
        if name in unusable:
            found = replace(found, refused=f"its reference: {unusable[name].reason}")
        if name in stated:
            found = replace(found, pixel_size_um=stated[name].pixel_size_um, channels=stated[name].channels)
        stock[name] = replace(found, reference=str(references[name])) if name in references else found
    return assign_batches(dict(sorted(stock.items())), known, stated, probabilities=settings.needs_probabilities)


def assign_batches(
    stock: Samples, known: Mapping[str, Sample], stated: Mapping[str, Stated], *, probabilities: bool
) -> Samples:
    """Return the slides with their batches: that of the last run, if it still serves; the others form new ones.

    Parameters
    ----------
    stock, known : mapping of Sample
        What there is now; what the last run found.
    stated : mapping of Stated
        The sample sheet.
    probabilities : bool
        Whether predictions must have them.
    """
    batches = {
        name: known[name].batch
        for name, one in stock.items()
        if name in known and _serves(known[name], one, probabilities)
    }
    new: dict[str, dict[str, str]] = defaultdict(dict)
    for name, one in stock.items():
        if one.is_ready and name not in batches:
            new[stated.get(name, NOTHING).batch or folder_of(name)][name] = one.pixels
    for folder, members in new.items():
        batches |= dict.fromkeys(members, name_batch(folder, members, probabilities=probabilities))
    return {name: replace(one, batch=batches.get(name, "")) for name, one in stock.items()}


def samples_of_run(settings: Settings) -> Samples:
    """Return what the run that is going on, or was the last, found; what is there now where there was none."""
    return known_samples() or take_stock(settings)


def write_samples(samples: Samples, command: str) -> None:
    """Write down what a run found, and the command that began it."""
    write_json(SLIDES, {"command": command, "samples": {name: asdict(one) for name, one in samples.items()}})


def known_samples() -> Samples:
    """Return what the last run found; nothing where there was none, or what it wrote cannot be read."""
    try:
        return _read_samples(SLIDES)
    except SlidemillError:
        return {}


def members_of_batch(slides: Path, batch: str) -> list[str]:
    """Return the samples of a batch, from what a run found (``slides``, JSON).

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
    """Return the command that began the last run; nothing where it is not known."""
    try:
        return str(read_json(SLIDES)["command"])
    except (SlidemillError, KeyError):
        return ""


def refuse_for_cluster(samples: Samples) -> Samples:
    """Return the samples, those refused whose names Snakemake cannot hand to the jobs of a cluster.

    It puts them on command lines as Python writes strings, which a shell reads otherwise where it is not between
    apostrophes without any escape; and it parts what it puts there at commas.
    """
    return {name: _for_cluster(name, one) for name, one in samples.items()}


def has_news(now: Mapping[str, Sample], before: Mapping[str, Sample]) -> bool:
    """Return whether a run would find something to do: a new or replaced slide, one that is gone, or one refused."""
    news = {
        name for name, one in now.items() if not one.waits and before.get(name) not in (one, _for_cluster(name, one))
    }
    return bool(news or set(before) - set(now))


def _read_samples(path: Path) -> Samples:
    try:
        return {
            name: Sample(**one | {"channels": None if one["channels"] is None else tuple(one["channels"])})
            for name, one in read_json(path)["samples"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise SlidemillError(f"{path}: not what a run found, of this version; remove it and run again") from error


def _serves(before: Sample, now: Sample, probabilities: bool) -> bool:
    """Return whether the predictions of a slide are those of the last run; probabilities may be there, unasked for."""
    return bool(before.batch) and before.pixels == now.pixels and has_probabilities(before.batch) >= probabilities


def _look(slide: Path, before: Sample | None, settle_s: float, now_s: float) -> Sample | None:
    """Return what is known of a slide without opening it; None where it has just been removed."""
    try:
        states = [slide.stat(), *(path.stat() for path in _parts(slide) if path.exists())]
        size, changed_ns = sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
        found = Sample(slide=str(slide), version=f"{size} bytes, {changed_ns} ns")
        if before and before.is_ready and before.version == found.version:
            return found
        # The time of the last change of the inode: unlike that of the content, no program that copies sets it back.
        age_s = now_s - max(state.st_ctime for state in states)
        return replace(found, waits=_why_it_waits(slide, age_s, settle_s))
    except FileNotFoundError:
        return None
    except OSError as error:
        return Sample(slide=str(slide), refused=f"{slide}: cannot be read: {error.strerror}; allow it, or remove it")


def _parts(slide: Path) -> list[Path]:
    """Return the other files whose change is one of the slide; of a folder what lies in it, not what is below."""
    return list(slide.iterdir()) if slide.is_dir() else parts_of(slide)


def _why_it_waits(slide: Path, age_s: float, settle_s: float) -> str:
    if settle_s == 0 or age_s < -settle_s:  # a clock that is wrong
        return ""
    if age_s < settle_s:
        return f"{slide}: changed less than settle_s ({settle_s:g} s) ago; the next run takes it"
    if age_s < _COPYING_S and not slide.is_dir():
        missing = [part.name for part in parts_of(slide) if not part.exists()]
        if missing:
            return f"{slide}: {missing[0]}, which belongs to it, is not there yet; the next run looks again"
        if is_partial(slide):
            return f"{slide}: shorter than its header says, so still being copied; the next run looks again"
    return ""


def _for_cluster(name: str, sample: Sample) -> Sample:
    written = repr(name)
    travels = "," not in name and written[1:-1] == name and (written[0] == "'" or not set(name) & set("$`"))
    if travels or sample.refused:
        return sample
    reason = (
        f"{sample.slide}: a name with comma, white space other than blanks, or an apostrophe beside a quote or $, "
        "cannot be handed to jobs of a cluster; rename it"
    )
    return replace(sample, waits="", refused=reason)
