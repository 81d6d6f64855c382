"""The ledger of a job: what became of each sample of its batch, and from what.

A job adds one line to a journal for every sample that it is through with. When all samples have an outcome, the ledger
is written; the journal of a killed job is what its next attempt goes on from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from pipeline import __version__
from pipeline.base import paths
from pipeline.base.errors import Failure, SlidemillError
from pipeline.base.files import State, read_json, replacing, states_of, unfinished

Entries = dict[str, "Entry"]

MAKERS = ("train", "combine")  # stages that make a network

_JOURNAL = ".jsonl"
_SAVING_NS = 10**10


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of one sample in one stage.

    Attributes
    ----------
    fingerprint : str
        Of all that decides the result, see :mod:`pipeline.project.jobs.fingerprints`.
    inputs : dict of str
        Fingerprints of what it is made from. With the recipe of the ledger, they say why it is made again.
    files : list of str
        The files that the stage made of the sample, relative to the project.
    states : list of [int, int]
        Size and time of the last change (ns) of each file when it was made; :class:`LedgerWriter` adds them.
    found : dict
        What the stage measured, as JSON types; docs/contracts.md describes the keys.
    seconds : float
        Time that the sample took.
    failure : Failure or None
        Why it failed; then it has no files.
    """

    fingerprint: str
    inputs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    failure: Failure | None = None

    @property
    def is_done(self) -> bool:
        """Whether the stage succeeded."""
        return self.failure is None

    @property
    def has_files(self) -> bool:
        """Whether all files are there as the stage left them."""
        now = states_of(self.files)
        return len(now) == len(self.states) and all(map(_is_same, self.states, now))

    def serves(self, fingerprint: str) -> bool:
        """Return whether it is a success under this fingerprint whose files are all there as they were made."""
        return self.is_done and self.fingerprint == fingerprint and self.has_files

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON types."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["failure"] = self.failure._asdict() if self.failure else None
        return {"status": "done" if self.is_done else "failed"} | content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned."""
        known = {field.name: content[field.name] for field in fields(cls)}
        return cls(**known | {"failure": Failure(**content["failure"]) if content["failure"] else None})


def _is_same(before: State, now: State) -> bool:
    """Return whether a file has its size, and nearly its time, which a server may set when it saves the file."""
    return before is not None and now is not None and before[0] == now[0] and abs(before[1] - now[1]) < _SAVING_NS


def ledger_path(stage: str, model: str, batch: str) -> Path:
    """Return the path of the ledger of a job on a batch of samples."""
    return Path(paths.LEDGER.format(stage=stage, model=model, batch=batch))


def network_ledger_path(stage: str, model: str) -> Path:
    """Return the path of the ledger of a job that makes a network, or what it is trained with."""
    return Path(paths.NETWORK_LEDGER.format(stage=stage, model=model))


def read_ledger(path: Path) -> Entries:
    """Return the entries of a ledger by sample; none if it does not exist or is not one of this version."""
    try:
        return {name: Entry.from_dict(entry) for name, entry in read_json(path)["samples"].items()}
    except (SlidemillError, KeyError, TypeError, AttributeError):
        return {}


def read_recipe(path: Path) -> list[Any]:
    """Return the algorithm and the settings under which a ledger was written; empty as :func:`read_ledger`."""
    try:
        return list(read_json(path)["recipe"])
    except (SlidemillError, KeyError, TypeError):
        return []


def makers_of(network: Path) -> list[tuple[str, str]]:
    """Return the jobs (stage, model) that may have made a network file; none if it is not one of this project."""
    before, after = paths.NETWORK.split("{model}")
    path = network.as_posix()
    if not path.startswith(before) or not path.endswith(after):
        return []
    return [(stage, path.removeprefix(before).removesuffix(after)) for stage in MAKERS]


def has_failed(stage: str, model: str) -> bool:
    """Return whether a job that makes a network, or what it is trained with, failed, or one before it did."""
    path = network_ledger_path(stage, model)
    entry = read_ledger(path).get(model)
    return path.is_file() and (entry is None or not entry.is_done)


def was_interrupted(path: Path) -> bool:
    """Return whether a job that was to write this ledger began and did not end."""
    return unfinished(path).parent.is_dir()


def samples_recorded(path: Path) -> int:
    """Return for how many samples a job that is writing this ledger has recorded an outcome."""
    try:
        return _journal_beside(unfinished(path)).read_bytes().count(b"\n")
    except OSError:  # it has just begun, or ended
        return 0


class LedgerWriter:
    """Writes a ledger, one sample after the other.

    Attributes
    ----------
    known : dict of Entry
        What is known from earlier jobs: those that ended, and the one that was interrupted last.
    goes_on : bool
        Whether an earlier job began this ledger and was interrupted.
    """

    def __init__(self, known: Entries, journal: Path, *, goes_on: bool = False) -> None:
        self.known = known
        self.goes_on = goes_on
        self.entries: Entries = {}
        self._journal = journal

    def record(self, sample: str, entry: Entry) -> None:
        """Add the outcome of a sample; if the job is killed after this, the next attempt knows it."""
        entry = replace(entry, states=states_of(entry.files))
        self.entries[sample] = entry
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"sample": sample} | entry.to_dict(), allow_nan=False) + "\n")

    def keep(self, sample: str) -> None:
        """Add the outcome of a sample that is known already."""
        self.entries[sample] = self.known[sample]


@contextmanager
def write_ledger(
    path: Path, *, stage: str, model: str, batch: str = "", recipe: Sequence[Any] = ()
) -> Iterator[LedgerWriter]:
    """Open the ledger of a job; it appears under its name when the block ends without an exception.

    ``recipe`` is the :class:`~pipeline.project.jobs.fingerprints.Recipe` of the stage.
    """
    with replacing(path, keep=True) as temporary:
        journal = _journal_beside(temporary)
        goes_on = journal.is_file()
        journal.touch()
        writer = LedgerWriter(read_ledger(path) | _read_journal(journal), journal, goes_on=goes_on)
        yield writer
        about = {"stage": stage, "model": model, "batch": batch, "version": __version__, "recipe": recipe}
        entries = {name: entry.to_dict() for name, entry in sorted(writer.entries.items())}
        text = json.dumps(about | {"samples": entries}, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _journal_beside(temporary: Path) -> Path:
    return temporary.with_suffix(_JOURNAL)


def _read_journal(journal: Path) -> Entries:
    """Return the entries of an interrupted job; what follows a line that was cut off is not there."""
    entries = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else ():
        try:
            content = json.loads(line)
            entries[content["sample"]] = Entry.from_dict(content)
        except (ValueError, KeyError, TypeError):
            break
    return entries
